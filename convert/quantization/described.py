"""What a GGUF file is made of: bytes and tensors by their actual type."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NamedTuple

from rim_edge import _native
from rim_edge.errors import ModelFileError
from rim_edge.evaluation.identity import file_sha256


@dataclass(frozen=True)
class TypeCount:
    """Tensors of one type: how many, how many values they hold, and their bytes."""

    n_tensors: int
    n_params: int
    bytes: int


class Fallback(NamedTuple):
    """A tensor whose row length does not allow the type that was asked for."""

    tensor: str
    asked: str
    actual: str


@dataclass(frozen=True)
class QuantizedFile:
    """A GGUF file.

    Attributes:
        path: where it is.
        sha256: of the file, hexadecimal.
        size_bytes: of the file.
        bits_per_weight: of all tensors, metadata not counted.
        tensor_types: what is really in the file, by type in lower case (``q4_k``), largest first.
        fallbacks: tensors that have another type than the recipe asks for; empty for a file that was only read.
        notices: what a user should be told.
    """

    path: Path
    sha256: str
    size_bytes: int
    bits_per_weight: float
    tensor_types: dict[str, TypeCount]
    fallbacks: tuple[Fallback, ...] = ()
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file: ``shape`` with the row's length first, ``type`` in lower case."""

    shape: tuple[int, ...]
    type: str
    size_bytes: int

    @property
    def n_params(self) -> int:
        return prod(self.shape)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a model by name, those of its other parts included (``NAME-00001-of-00003.gguf``).

    Raises ModelFileError.
    """
    found: dict[str, Tensor] = {}
    for part in parts(path):
        for tensor in _native.GgufFile(os.fspath(part), arrays=False).tensors:
            found[tensor.name] = Tensor(tuple(tensor.shape), tensor.type.lower(), tensor.size_bytes)
    return found


def parts(path: Path) -> list[Path]:
    """Every file of a model whose first file is ``path``."""
    count = _native.GgufFile(os.fspath(path), arrays=False).metadata.get("split.count", 1)
    first = f"-00001-of-{count:05d}.gguf"
    if not isinstance(count, int) or count < 2 or not path.name.endswith(first):
        return [path]
    stem = path.name.removesuffix(first)
    return [path.with_name(f"{stem}-{i:05d}-of-{count:05d}.gguf") for i in range(1, count + 1)]


def count_types(tensors: Iterable[Tensor]) -> dict[str, TypeCount]:
    """Tensors by type, the type with most bytes first."""
    n_tensors: Counter[str] = Counter()
    n_params: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for tensor in tensors:
        n_tensors[tensor.type] += 1
        n_params[tensor.type] += tensor.n_params
        size[tensor.type] += tensor.size_bytes
    return {kind: TypeCount(n_tensors[kind], n_params[kind], n_bytes) for kind, n_bytes in size.most_common()}


def bits_per_weight(tensors: Mapping[str, Tensor]) -> float:
    """Bits of all tensors over all their values; 0 where there are none."""
    values = sum(tensor.n_params for tensor in tensors.values())
    return 8 * sum(tensor.size_bytes for tensor in tensors.values()) / values if values else 0.0


def describe_file(path: Path) -> QuantizedFile:
    """What a GGUF file is made of. A model of several parts is refused: a file is one file.

    Raises ModelFileError, OSError.
    """
    if len(parts(path)) > 1:
        raise ModelFileError(f"{path} is one of several parts of a model: quantize it, which joins them, first")
    tensors = read_tensors(path)
    return QuantizedFile(
        path=path,
        sha256=file_sha256(path),
        size_bytes=path.stat().st_size,
        bits_per_weight=bits_per_weight(tensors),
        tensor_types=count_types(tensors.values()),
    )
