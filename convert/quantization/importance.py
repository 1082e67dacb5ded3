"""The importance matrix: how much each input column of each weight matrix is used, as llama.cpp stores it.

For a matrix W and the activations x that it is multiplied with, ``in_sum2`` is the sum of x squared per column of W and
``counts`` the number of activations (of each expert, where there are several). A quantizer weighs the rounding errors
of a row with ``in_sum2 / counts``. The file is a GGUF of ``general.type`` ``imatrix``; llama.cpp's ``llama-imatrix``
writes and ``llama-quantize --imatrix`` reads the same form.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from rim_edge import _native
from rim_edge.errors import ModelFileError, OptionError

from ..whole_file import whole_file

FloatArray = npt.NDArray[np.float32]

_SUMS, _COUNTS = ".in_sum2", ".counts"


@dataclass(frozen=True, eq=False)
class ImportanceMatrix:
    """Sums of squared activations.

    Attributes:
        in_sum2: by tensor name, ``[n_experts, n_columns] float32``; one expert for plain matrices.
        counts: by tensor name, ``[n_experts] float32``: activations that were summed, times their weight.
        chunk_count: sequences that were run.
        chunk_size: tokens of the longest one.
        datasets: where the sequences came from.
    """

    in_sum2: dict[str, FloatArray]
    counts: dict[str, FloatArray]
    chunk_count: int
    chunk_size: int
    datasets: tuple[str, ...] = field(default=())

    @classmethod
    def load(cls, path: Path) -> ImportanceMatrix:
        """Read a file, this project's or llama.cpp's.

        Raises:
            ModelFileError: it is no importance matrix, or a damaged one.
            OSError: it cannot be read.
        """
        with open(path, "rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelFileError(
                    f"{path} is no GGUF file: importance matrices of llama.cpp's old .dat form must be converted to "
                    "GGUF first (llama-imatrix --in-file OLD --output-format gguf)"
                )
        head = _native.GgufFile(os.fspath(path))
        if head.metadata.get("general.type") != "imatrix":
            raise ModelFileError(f"{path} is no importance matrix: its general.type is not 'imatrix'")
        arrays: dict[str, FloatArray] = {}
        for tensor in head.tensors:
            if tensor.type != "F32" or (len(tensor.shape) > 2 and tensor.shape[2:] != (1,) * (len(tensor.shape) - 2)):
                raise ModelFileError(f"{path} is damaged: {tensor.name!r} is not a matrix of F32")
            shape = (*tensor.shape, 1)[1::-1]
            arrays[tensor.name] = np.fromfile(path, "<f4", int(np.prod(shape)), offset=tensor.offset).reshape(shape)
        sums = {name.removesuffix(_SUMS): value for name, value in arrays.items() if name.endswith(_SUMS)}
        counts = {
            name.removesuffix(_COUNTS): value.reshape(-1) for name, value in arrays.items() if name.endswith(_COUNTS)
        }
        if not sums or sums.keys() != counts.keys():
            odd = next(iter(sums.keys() ^ counts.keys()), "no tensor")
            raise ModelFileError(f"{path} is damaged: sums and counts do not belong together ({odd})")
        for name, value in sums.items():
            if len(counts[name]) not in (1, len(value)) or not _usable(value) or not _usable(counts[name]):
                raise ModelFileError(f"{path} is damaged: the values of {name!r} are no sums of squares and counts")
            counts[name] = np.broadcast_to(counts[name], (len(value),)).copy()
        datasets = head.metadata.get("imatrix.datasets")
        texts = [datasets[i] for i in range(len(datasets))] if isinstance(datasets, _native.StringArray) else []
        return cls(
            sums,
            counts,
            _integer(head.metadata, "imatrix.chunk_count"),
            _integer(head.metadata, "imatrix.chunk_size"),
            tuple(text.decode("utf-8", "replace") for text in texts),
        )

    def save(self, path: Path, force: bool = False) -> None:
        """Write the file, whole or not at all. Raises ConvertError where ``path`` exists without ``force``, OSError."""
        with whole_file(path, force) as place:
            self._write(place)

    def means(self) -> dict[str, FloatArray]:
        """What the quantizer takes: by tensor name the mean square per column, experts one after the other, ``[n]``.

        An expert that no activation reached weighs all its columns alike, as in llama.cpp.
        """
        found = {}
        for name in sorted(self.in_sum2):
            counts = self.counts[name][:, None]
            means = np.ones_like(self.in_sum2[name])
            np.divide(self.in_sum2[name], counts, out=means, where=counts > 0)
            found[name] = np.ascontiguousarray(means.reshape(-1))
        return found

    def check_model(self, shapes: Mapping[str, tuple[int, ...]], model: Path) -> None:
        """Raise OptionError where the matrix was collected on another model than one with tensors of these shapes.

        ``shapes``: by tensor name, the row's length first.
        """
        for name, sums in self.in_sum2.items():
            if name == "output.weight" and name not in shapes:
                continue  # the model's embedding is its output matrix
            shape = shapes.get(name)
            if shape is None:
                raise OptionError(
                    f"the importance matrix belongs to another model: {model} has no tensor {name!r} (collect it again)"
                )
            columns = shape[0] * (shape[2] if len(shape) > 2 else 1)  # of every expert
            if sums.size != columns:
                raise OptionError(
                    f"the importance matrix belongs to another model: {name!r} has {columns} columns in {model} and "
                    f"{sums.size} in the matrix (collect it again)"
                )

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file that :meth:`save` writes, hexadecimal."""
        with TemporaryDirectory(prefix="rim-edge-") as folder:
            place = Path(folder) / "importance.gguf"
            self._write(place)
            return hashlib.sha256(place.read_bytes()).hexdigest()

    def _write(self, place: Path) -> None:
        writer = gguf.GGUFWriter(None, "imatrix")
        writer.kv_data[0].clear()  # llama.cpp's files name no architecture
        writer.add_type("imatrix")
        writer.add_array("imatrix.datasets", list(self.datasets) or ["unknown"])
        writer.add_uint32("imatrix.chunk_count", self.chunk_count)
        writer.add_uint32("imatrix.chunk_size", self.chunk_size)
        for name in sorted(self.in_sum2):
            writer.add_tensor(name + _SUMS, np.ascontiguousarray(self.in_sum2[name], "<f4"))
            writer.add_tensor(name + _COUNTS, np.ascontiguousarray(self.counts[name].reshape(-1, 1), "<f4"))
        writer.write_header_to_file(place)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _usable(values: FloatArray) -> bool:
    return bool(np.isfinite(values).all() and (values >= 0).all())


def _integer(metadata: Mapping[str, Any], key: str) -> int:
    value = metadata.get(key, 0)
    return value if isinstance(value, int) else 0
