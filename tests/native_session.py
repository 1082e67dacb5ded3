"""Sessions on tiny models, for the tests of the latent loop."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from shapes import default_spec, make_model

from rim_edge import _native

SPEC = default_spec()
BLOCK = [SPEC.begin_id, *[SPEC.memory_id] * SPEC.block_size, SPEC.end_id]
MEMORY_IDS = {SPEC.begin_id, SPEC.memory_id, SPEC.end_id}
EXACT: dict[str, Any] = {"cache_type": "f32", "flash_attention": "off"}

#: largest difference of F32 logits between runs of other widths; libllama's GELU comes from a half-precision table
TOLERANCE = {"llama": 1e-4, "gpt2": 1e-3, "gemma3": 1e-3}

_folder = TemporaryDirectory(prefix="rim-edge-tests-")


@cache
def model(arch: str = "llama", outtype: str = "f32", **shape: Any) -> _native.Model:
    """A tiny model, made once for all tests."""
    name = "-".join([arch, outtype, *(f"{key}={value}" for key, value in sorted(shape.items()))])
    return _native.Model(str(make_model(Path(_folder.name) / f"{name}.gguf", arch, outtype=outtype, **shape)))


def blocks(count: int = 8, prefix: Sequence[int] = ()) -> _native.Blocks:
    return _native.Blocks(
        begin_id=SPEC.begin_id,
        memory_id=SPEC.memory_id,
        end_id=SPEC.end_id,
        size=SPEC.block_size,
        count=count,
        prefix=list(prefix),
    )


def session(of: _native.Model, count: int = 8, prefix: Sequence[int] = (), **options: Any) -> _native.Session:
    """A session with ``count`` blocks (0: a plain one)."""
    values = {"n_ctx": 1024, "n_threads": 1} | options
    layout = blocks(count, prefix) if count else None
    return _native.Session(of, layout, _native.SessionOptions(**values))


def text(length: int, seed: int = 0) -> list[int]:
    """Ids of bytes."""
    return [int(token) for token in np.random.default_rng(seed).integers(0, 256, length)]


def reference(
    of: _native.Model, tokens: list[int], rows: list[int], pad_outputs: int = 0, **options: Any
) -> npt.NDArray[np.float32]:
    """``[len(rows), n_vocab]`` logits of a plain single-sequence run in one batch."""
    values = {"n_ctx": 1024, "n_threads": 1} | options
    return _native.batch_logits(of, tokens, _native.SessionOptions(**values), rows, pad_outputs)


def block_ends(start: int, count: int) -> list[int]:
    return [start + len(BLOCK) * (k + 1) - 1 for k in range(count)]


def greedy(of: _native.Model, tokens: list[int], n: int) -> list[int]:
    """``n`` greedy tokens after ``tokens``, each by a plain run of everything, memory and control tokens left out."""
    banned = [token for token in of.control_ids if not of.is_eog(token)]
    found: list[int] = []
    for _ in range(n):
        logits = reference(of, tokens + found, [len(tokens) + len(found) - 1], **EXACT)[0].copy()
        logits[banned] = -np.inf
        best = int(logits.argmax())
        if of.is_eog(best):
            break
        found.append(best)
    return found


def think(of: _native.Session, tokens: list[int], depth: int = 8, **options: Any) -> list[_native.ReadoutState]:
    """The readouts of one question in lane 0, with logits."""
    return of.think([tokens], depth, logits=True, **options)[0]


def stack(readouts: Sequence[_native.ReadoutState]) -> npt.NDArray[np.float32]:
    rows = [readout.logits for readout in readouts]
    return np.stack([row for row in rows if row is not None])


def states(readouts: Sequence[_native.ReadoutState]) -> npt.NDArray[np.float32]:
    rows = [readout.hidden for readout in readouts]
    return np.stack([row for row in rows if row is not None])
