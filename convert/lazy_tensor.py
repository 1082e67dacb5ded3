"""Tensors that are read in runs of rows when they are written: a model of any size passes through little memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Reader = Callable[[int, int], FloatArray]

CHUNK_VALUES = 1 << 22
"""Values read at a time: 16 MiB as float32."""


@dataclass(frozen=True)
class LazyTensor:
    """A tensor whose values are asked for by rows of its first dimension.

    Attributes:
        name: the checkpoint's name for it, used in messages.
        shape: at least one dimension.
        read: ``read(start, stop)`` gives the rows ``start..stop``: ``[stop - start, *shape[1:]] float32``.
    """

    name: str
    shape: tuple[int, ...]
    read: Reader

    @property
    def row_size(self) -> int:
        """Values in one row."""
        return prod(self.shape[1:])

    def whole(self) -> FloatArray:
        """All values at once: ``[*shape] float32``."""
        return self.read(0, self.shape[0])

    def chunks(self, n_values: int = CHUNK_VALUES) -> Iterator[FloatArray]:
        """All rows in order, about ``n_values`` values at a time, at least one row."""
        step = max(1, n_values // max(1, self.row_size))
        for start in range(0, self.shape[0], step):
            yield self.read(start, min(start + step, self.shape[0]))

    def map_whole(
        self, function: Callable[[FloatArray], FloatArray], shape: tuple[int, ...] | None = None
    ) -> LazyTensor:
        """The tensor after ``function``, which needs all values at once and gives ``shape`` (default: the same)."""
        return replace(self, shape=shape or self.shape, read=lambda start, stop: function(self.whole())[start:stop])

    def map_rows(self, function: Callable[[FloatArray], FloatArray]) -> LazyTensor:
        """The tensor after ``function``, which changes values row by row."""
        return replace(self, read=lambda start, stop: function(self.read(start, stop)))


def in_memory(name: str, data: FloatArray) -> LazyTensor:
    """A tensor whose values are there already."""
    return LazyTensor(name, data.shape, lambda start, stop: data[start:stop])


def with_rows(tensor: LazyTensor, rows: dict[int, FloatArray], n_rows: int | None = None) -> LazyTensor:
    """``tensor`` with some rows replaced, and grown to ``n_rows``.

    Every row past the old end must be in ``rows``; each is ``[*shape[1:]] float32``.
    """
    old = tensor.shape[0]
    total = old if n_rows is None else n_rows

    def read(start: int, stop: int) -> FloatArray:
        out = np.empty((stop - start, *tensor.shape[1:]), np.float32)
        if start < old:
            out[: min(stop, old) - start] = tensor.read(start, min(stop, old))
        for index in range(max(start, old), stop):
            out[index - start] = rows[index]
        for index, row in rows.items():
            if start <= index < stop:
                out[index - start] = row
        return out

    return LazyTensor(tensor.name, (total, *tensor.shape[1:]), read)


def mean_row(tensor: LazyTensor, keep: Callable[[int, int], npt.NDArray[np.bool_]]) -> FloatArray:
    """Mean of the rows for which ``keep(start, stop)`` holds: ``[*shape[1:]] float32``, summed in double precision.

    Zero where no row is kept.
    """
    total = np.zeros(tensor.shape[1:], np.float64)
    count = start = 0
    for chunk in tensor.chunks():
        kept = chunk[keep(start, start + len(chunk))]
        total += kept.sum(axis=0, dtype=np.float64)
        count += len(kept)
        start += len(chunk)
    return (total / max(1, count)).astype(np.float32)
