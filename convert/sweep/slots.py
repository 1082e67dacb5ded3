"""Does the precision of the three slot embeddings matter? One F32 file, and only those three rows made coarse.

With tied embeddings the type of the embedding is the type of the output matrix too, so that two quantized files say
nothing about the slots alone. Here the model is F32, a copy of it gets the three rows as a type would leave them, and
the two are compared as a type is compared with the reference. The memory tokens are left out of both distributions:
with tied embeddings their logits change with their rows, and they are never said.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rim_edge import _native
from rim_edge.errors import ModelFileError, OptionError
from rim_edge.evaluation.data import Problem
from rim_edge.evaluation.identity import file_sha256
from rim_edge.spec import RimSpec

from ..quantization.quantizer import quantize_file
from ..quantization.recipe import Recipe
from .asking import Runner
from .measure import Prompts, compared_rows, reference_rows
from .plan import SweepOptions
from .progress import Watch
from .quality import distances
from .rows import RowFile
from .store import Store

EMBEDDING = "token_embd.weight"


class SlotRows:
    """The rows of the memory tokens in the embedding of an F32 file.

    Attributes:
        ids: begin, memory, end.
        rows: ``[3, n_embd] float32``, as they are in ``path``.
    """

    def __init__(self, path: Path, spec: RimSpec) -> None:
        """Raises ModelFileError where the embedding is not there or not F32."""
        tensors = {tensor.name: tensor for tensor in _native.GgufFile(str(path), arrays=False).tensors}
        tensor = tensors.get(EMBEDDING)
        if tensor is None or tensor.type.lower() != "f32":
            raise ModelFileError(f"{path} has no {EMBEDDING} of F32")
        self.ids = spec.memory_ids
        self._width = int(tensor.shape[0])
        self._offset = int(tensor.offset)
        self.rows = np.stack([self._at(path)[token] for token in self.ids]).copy()

    def _at(self, path: Path, mode: Literal["r", "r+"] = "r") -> np.memmap[Any, np.dtype[np.float32]]:
        shape = (max(self.ids) + 1, self._width)
        return np.memmap(path, dtype=np.float32, mode=mode, offset=self._offset, shape=shape)

    def as_type(self, kind: str) -> npt.NDArray[np.float32]:
        """The rows as ``kind`` leaves them. Raises OptionError where the width does not fit the type."""
        return np.asarray(_native.round_trip(kind, self.rows), np.float32)

    def write(self, path: Path, rows: npt.NDArray[np.float32]) -> None:
        """Put ``rows`` into ``path``, a copy of the file. Raises OSError."""
        place = self._at(path, "r+")
        for token, row in zip(self.ids, rows, strict=True):
            place[token] = row
        place.flush()


def measure_slots(
    options: SweepOptions,
    store: Store,
    watch: Watch,
    runner: Runner,
    problems: Sequence[Problem],
    prompts: Prompts,
    kinds: Sequence[str],
) -> tuple[dict[str, Any] | None, str]:
    """Distances to the F32 model for each of the tensor types ``kinds``, and a remark, empty where there is none.

    A type whose blocks do not fit the width gets ``{"skipped": reason}``. ``runner``: the reference of the sweep.
    """
    if runner.spec is None or runner.blocks[-1] == 0:
        return None, f"no slot embeddings to measure: {runner.why_direct or 'no memory blocks are run'}"
    key = file_sha256(options.source)
    found: dict[str, Any] = store.get("slots/results.json", key) or {}
    missing = [kind for kind in kinds if kind not in found]
    base, work = store.path(".slots-base.gguf"), store.path(".slots-work.gguf")
    if missing:
        try:
            watch.stage("slots: F32 file", 1)
            quantize_file(options.source, base, Recipe("f32"))
            shutil.copyfile(base, work)
            slots = SlotRows(base, runner.spec)
            reference = Runner(base, options.settings)
            try:
                rows = RowFile(store.path("slots/answers.jsonl"), key, runner.batch, len(problems))
                watch.stage("slots: answers", len(problems))
                reference_rows(reference, problems, prompts, rows, watch.done)
                for kind in missing:
                    found[kind] = _one(options, store, watch, reference, slots, work, problems, prompts, rows, kind)
                    store.put("slots/results.json", key, found)
            finally:
                reference.close()
        finally:
            base.unlink(missing_ok=True)
            work.unlink(missing_ok=True)
    return {kind: found[kind] for kind in kinds}, ""


def _one(
    options: SweepOptions,
    store: Store,
    watch: Watch,
    reference: Runner,
    slots: SlotRows,
    work: Path,
    problems: Sequence[Problem],
    prompts: Prompts,
    given: RowFile,
    kind: str,
) -> dict[str, Any]:
    try:
        slots.write(work, slots.as_type(kind))
    except OptionError as error:
        return {"skipped": str(error)}
    rows = RowFile(store.path(f"slots/{kind}.jsonl"), kind, reference.batch, len(problems))
    watch.stage(f"slots as {kind}", len(problems))
    runner = Runner(work, options.settings)
    try:
        compared_rows(
            reference, runner, problems, prompts, given.rows, rows, watch.done, answers=False, without=slots.ids
        )
    finally:
        runner.close()
    inside = [i for i, block in enumerate(reference.blocks) if block > 0]
    blocks = [{"block": reference.blocks[i]} | distances(rows.rows, [i]) for i in inside]
    watch.say(f"slots as {kind}: {distances(rows.rows, inside)['kl'].get('mean', 0.0):.4g} nats")
    return distances(rows.rows, inside) | {"readouts": blocks}
