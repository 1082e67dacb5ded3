"""The safetensors format, read with plain file reads.

A file is ``u64 header length, JSON header, data``; the header maps names to dtype, shape and the range of the data
(https://huggingface.co/docs/safetensors). Memory maps are avoided on purpose: their pages count as the process's
memory.
"""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from .failure import ConvertError
from .lazy_tensor import FloatArray, LazyTensor

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_FLOATS = {"F64", "F32", "F16", "BF16"}


def read_tensors(path: Path) -> dict[str, LazyTensor]:
    """The tensors of a safetensors file, sorted by name; their values are read later.

    Raises ConvertError with one line for a damaged file, OSError where it cannot be read.
    """
    header, data_offset, data_size = _read_header(path)
    tensors = {}
    for name in sorted(header):
        if name != "__metadata__":
            tensors[name] = _tensor(path, name, header[name], data_offset, data_size)
    return tensors


def _read_header(path: Path) -> tuple[dict[str, Any], int, int]:
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
            raise ConvertError(f"{path} is no valid safetensors file, or it is cut short: its header does not fit")
        try:
            header = json.loads(stream.read(length))
        except (ValueError, RecursionError) as error:
            raise ConvertError(f"{path} is no valid safetensors file: its header is no JSON ({error})") from None
    if not isinstance(header, dict):
        raise ConvertError(f"{path} is no valid safetensors file: its header is no JSON object")
    return header, 8 + length, size - 8 - length


def _tensor(path: Path, name: str, entry: Any, data_offset: int, data_size: int) -> LazyTensor:
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        well_formed = isinstance(dtype, str) and all(type(n) is int and n >= 0 for n in (*shape, begin, end))
    except (TypeError, KeyError, ValueError):
        well_formed = False
    if not well_formed:
        raise ConvertError(f"{path} is damaged: the entry of the tensor {name!r} cannot be read")
    if begin > end or end > data_size:
        raise ConvertError(f"{path} is damaged or cut short: the tensor {name!r} lies outside the file")
    if dtype in _BYTES and end - begin != prod(shape) * _BYTES[dtype]:
        raise ConvertError(f"{path} is damaged: the tensor {name!r} of shape {shape} takes {end - begin} bytes")

    def read(start: int, stop: int) -> FloatArray:
        if dtype not in _FLOATS:
            raise ConvertError(
                f"{path}: the tensor {name!r} has the type {dtype}; only F64, F32, F16 and BF16 can be converted"
            )
        row = prod(shape[1:])
        raw = _read_bytes(
            path, name, data_offset + begin + start * row * _BYTES[dtype], (stop - start) * row * _BYTES[dtype]
        )
        return _as_float32(raw, dtype).reshape(stop - start, *shape[1:])

    return LazyTensor(name, shape, read)


def _read_bytes(path: Path, name: str, offset: int, size: int) -> bytearray:
    raw = bytearray(size)
    with path.open("rb", buffering=0) as stream:
        stream.seek(offset)
        view, got = memoryview(raw), 0
        while got < size:
            n = stream.readinto(view[got:])
            if not n:
                raise ConvertError(f"{path} ended early while the tensor {name!r} was read: has it changed?")
            got += n
    return raw


def _as_float32(raw: bytearray, dtype: str) -> FloatArray:
    """Values as float32, exact for BF16, F16 and F32."""
    if dtype == "F32":
        return np.frombuffer(raw, "<f4")
    if dtype == "BF16":
        wide = np.frombuffer(raw, "<u2").astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    return np.frombuffer(raw, "<f2" if dtype == "F16" else "<f8").astype(np.float32)
