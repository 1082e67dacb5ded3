"""What a sweep is asked for, and what makes it the same sweep when it is run again."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rim_edge import _native
from rim_edge.errors import OptionError
from rim_edge.evaluation.data import Problem

from ..quantization.described import QuantizedFile
from ..quantization.recipe import FILE_TYPES, Recipe

#: what ``--types`` takes where nothing is said
DEFAULT_TYPES = ("q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0", "iq4_nl", "q3_k_m", "q2_k")
SCHEMA = 1


@dataclass(frozen=True)
class Settings:
    """How questions are asked; all of it decides the numbers, except ``n_threads``.

    Attributes:
        blocks: memory blocks; None: as trained.
        max_tokens: most tokens of an answer.
        batch: questions side by side.
        suite: kind of the data (:mod:`rim_edge.evaluation.suites`), None for any.
        cache_type, flash_attention: of the context, see :func:`rim_edge.load`.
        n_threads: None: the physical cores.
    """

    blocks: int | None = None
    max_tokens: int = 64
    batch: int = 4
    suite: str | None = None
    cache_type: str = "f16"
    flash_attention: str = "auto"
    n_threads: int | None = None


@dataclass(frozen=True)
class Calibration:
    """Where the importance matrix comes from: a file of questions with answers, or a finished matrix.

    Attributes:
        data: questions with answers, None where ``matrix`` is given.
        slot_weight: weight of the memory blocks' positions.
        text_only: no memory blocks in the sequences.
        matrix: a file that :class:`..quantization.importance.ImportanceMatrix` reads.
    """

    data: Path | None = None
    slot_weight: float = 1.0
    text_only: bool = False
    matrix: Path | None = None


@dataclass(frozen=True)
class SweepOptions:
    """Everything that a sweep is told.

    Attributes:
        source: the unquantized GGUF file, which is also the reference.
        data: file of problems. out: folder of the sweep.
        types: file types, see ``FILE_TYPES``.
        tensor_types, output_type, embedding_type: see :class:`..quantization.recipe.Recipe`.
        limit: only the first problems, None for all.
        rounds: samples of each speed, 0 for none.
        slots: measure the slot embeddings too. keep: leave the quantized files.
        save_matrix: another place for the importance matrix that was collected.
    """

    source: Path
    data: Path
    out: Path
    types: tuple[str, ...] = DEFAULT_TYPES
    tensor_types: tuple[tuple[str, str], ...] = ()
    output_type: str | None = None
    embedding_type: str | None = None
    calibration: Calibration | None = None
    limit: int | None = None
    rounds: int = 5
    slots: bool = False
    keep: bool = True
    save_matrix: Path | None = None
    settings: Settings = field(default_factory=Settings)

    def recipe(self, kind: str, importance: str | None) -> Recipe:
        """The recipe of one type; ``importance``: SHA-256 of the matrix."""
        return Recipe(kind, self.tensor_types, self.output_type, self.embedding_type, importance)


def check_types(names: tuple[str, ...]) -> tuple[str, ...]:
    """``names`` as the library writes them, each once, in order. Raises OptionError."""
    if not names:
        raise OptionError(f"no type to make: give at least one of {', '.join(FILE_TYPES)}")
    return tuple(dict.fromkeys(Recipe(name).type for name in names))


def identity(
    options: SweepOptions, source: QuantizedFile, data_sha256: str, problems: list[Problem], matrix: str | None
) -> dict[str, Any]:
    """What must be equal for finished parts of a folder to be used again. The list of types is not part of it.

    ``matrix``: SHA-256 of the importance matrix that was given as a file, or of the calibration's data.
    """
    calibration = options.calibration
    settings = {key: value for key, value in asdict(options.settings).items() if key != "n_threads"}
    return {
        "schema": SCHEMA,
        "llama-cpp-python": _native.BUILT_FOR,
        "source": source.sha256,
        "data": data_sha256,
        "problems": len(problems),
        **settings,
        "tensor_types": [list(pair) for pair in options.tensor_types],
        "output_type": options.output_type,
        "embedding_type": options.embedding_type,
        "importance": None
        if calibration is None
        else {
            "from": "matrix" if calibration.matrix else "calibration",
            "from_sha256": matrix,
            "slot_weight": None if calibration.matrix else calibration.slot_weight,
            "text_only": None if calibration.matrix else calibration.text_only,
        },
    }


_NAMES = {
    "schema": "the form of the results",
    "llama-cpp-python": "the version of llama-cpp-python",
    "source": "the model",
    "data": "the data",
    "problems": "the number of problems (--limit)",
    "importance": "the importance matrix (--calibrate, --imatrix, --slot-weight)",
    "tensor_types": "--tensor-type",
}


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two identities, in a user's words."""
    found = []
    for key in now:
        old, new = before.get(key), now[key]
        if old == new:
            continue
        name = _NAMES.get(key, f"--{key.replace('_', '-')}")
        short = not isinstance(new, (dict, list)) and key not in ("source", "data")
        found.append(f"{name} ({old} before, {new} now)" if short else name)
    return found
