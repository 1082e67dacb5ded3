"""The files of a sweep: what each type will be, making it, and knowing it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rim_edge.evaluation.identity import file_sha256

from ..quantization.importance import ImportanceMatrix
from ..quantization.quantizer import QuantizedFile, describe_file, plan_file, quantize_file
from ..quantization.recipe import NEED_IMPORTANCE, Recipe
from .plan import SweepOptions
from .progress import Watch
from .store import Store, check_room

_REPORT_ROOM = 4 << 20  # bytes for everything but models


class Files:
    """Source and quantized files.

    Attributes:
        source: what the unquantized file is. type: of most of its bytes, the name of the reference.
        matrix: the importance matrix, set before files are made where there is one.

    Raises ModelFileError where the source is no model that can be quantized.
    """

    def __init__(self, options: SweepOptions, watch: Watch) -> None:
        self._options, self._watch = options, watch
        self.source = describe_file(options.source)
        self.type = next(iter(self.source.tensor_types))
        self.matrix: ImportanceMatrix | None = None
        self._sure: set[str] = set()

    def recipe(self, kind: str) -> Recipe:
        """What is asked for of a type."""
        return self._options.recipe(kind, self.matrix.sha256 if self.matrix else None)

    def check(self, kind: str) -> None:
        """Find out before any work whether the quantizer will make a type. Raises OptionError, ModelFileError."""
        recipe = self.recipe(kind)
        asked = {recipe.output_type, recipe.embedding_type, *(name for _, name in recipe.tensor_types)}
        needs = recipe.file_type.needs_importance or bool(asked & NEED_IMPORTANCE)
        if not (needs and self._options.calibration is not None and self.matrix is None):  # else it comes later
            plan_file(self._options.source, recipe, self.matrix)

    def path(self, kind: str) -> Path:
        """Where the file of a type lies: the source's name with the type in the place of its own."""
        stem = self._options.source.stem
        for ending in (f"-{self.type}", f".{self.type}", f"_{self.type}"):
            stem = stem[: -len(ending)] if stem.lower().endswith(ending) else stem
        return self._options.out / f"{stem}-{kind}.gguf"

    def check_room(self, kinds: Sequence[str]) -> None:
        """Raise ConvertError where the disk is too small; files are there at once for their speeds, or if kept."""
        options, sizes = self._options, []
        for kind in kinds:
            path = self.path(kind)
            size = plan_file(options.source, self.recipe(kind), self.matrix).size_bytes
            sizes.append(max(0, size - (path.stat().st_size if path.exists() else 0)))
        needed = sum(sizes) if options.keep or options.rounds else max(sizes, default=0)
        if options.slots:
            values = sum(count.n_params for count in self.source.tensor_types.values())
            needed += 2 * 4 * values  # two F32 files
        check_room(options.out, needed + _REPORT_ROOM, f"a sweep of {len(kinds)} types")

    def known(self, store: Store, kind: str) -> dict[str, Any] | None:
        """What ``sweep.json`` says about a file that was made, whether it is still there or not."""
        found: dict[str, Any] | None = store.get(f"types/{kind}/file.json", self.recipe(kind).as_dict())
        return found

    def ensure(self, store: Store, kind: str) -> tuple[Path, dict[str, Any]]:
        """Make a file, unless it is there as it was made; its path and what is known about it."""
        path, known = self.path(kind), self.known(store, kind)
        if known is not None and kind in self._sure:
            return path, known
        if known is None or not path.exists() or file_sha256(path) != known["sha256"]:
            self._watch.stage(f"{kind}: quantizing", 100)
            recipe = self.recipe(kind)
            file = quantize_file(
                self._options.source,
                path,
                recipe,
                self.matrix,
                n_threads=self._options.settings.n_threads or 0,
                progress=lambda done, total: self._watch.done(100 * done // max(total, 1)),
            )
            known = facts(file) | {"name": path.name, "recipe": recipe.as_dict()}
            store.put(f"types/{kind}/file.json", recipe.as_dict(), known)
            self._watch.say(f"{kind}: {file.size_bytes / 1e6:,.1f} MB, {file.bits_per_weight:.2f} bits per weight")
        self._sure.add(kind)
        return path, known

    def discard(self, kind: str) -> None:
        """Remove a file; it is made again if it is needed again."""
        self.path(kind).unlink(missing_ok=True)
        self._sure.discard(kind)


def facts(file: QuantizedFile) -> dict[str, Any]:
    """A file as JSON: SHA-256, size, and tensors by their actual type."""
    return {
        "sha256": file.sha256,
        "size_bytes": file.size_bytes,
        "bits_per_weight": file.bits_per_weight,
        "tensor_types": {kind: asdict(count) for kind, count in file.tensor_types.items()},
        "fallbacks": [list(fallback) for fallback in file.fallbacks],
        "notices": list(file.notices),
    }


def fallback_notice(kind: str, fallbacks: Sequence[Sequence[str]]) -> str:
    """What to tell a user about tensors that got another type than the recipe asks for."""
    counts = Counter((asked, actual) for _, asked, actual in fallbacks)
    parts = ", ".join(f"{n} are {actual} instead of {asked}" for (asked, actual), n in counts.most_common())
    return f"{kind}: rows of this model do not fit the blocks of that type; {parts} (tensors)"
