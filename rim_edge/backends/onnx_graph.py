"""The graph in onnxruntime, and the attention caches that it writes into.

A cache is one onnxruntime buffer per layer for keys and one for values, ``[rows, heads, capacity, head_size]``. The
same memory is bound as past and as present, so that a run appends to it in place and nothing is copied per token
(GroupQueryAttention shares the buffers when both have one address). How much of a row is in use says the attention
mask: its sum is the row's length, new tokens included.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rim_edge.arrays import FloatArray
from rim_edge.backends.onnx_folder import ROWS_INPUT, OnnxFolder
from rim_edge.errors import BackendError, ModelFileError

_PAST, _PRESENT = "past_key_values.", "present."
_ERRORS_ONLY = 4  # onnxruntime logs to the terminal below this level; what fails is raised as well


@dataclass(frozen=True)
class Layout:
    """Sizes of the graph; ``heads`` and ``head_sizes`` are those of the cache tensors ``past`` and ``present``."""

    past: tuple[str, ...]
    present: tuple[str, ...]
    heads: tuple[int, ...]
    head_sizes: tuple[int, ...]
    n_vocab: int
    n_embd: int
    has_positions: bool

    @property
    def n_layer(self) -> int:
        return len(self.past) // 2

    @property
    def token_bytes(self) -> int:
        """Bytes that one token takes in a row of a cache."""
        return 4 * sum(heads * size for heads, size in zip(self.heads, self.head_sizes, strict=True))


class Cache:
    """Keys and values of ``rows`` sequences of up to ``capacity`` tokens each, zero at first."""

    def __init__(self, layout: Layout, rows: int, capacity: int) -> None:
        import onnxruntime

        self.layout, self.rows, self.capacity = layout, rows, capacity
        self.bindings: dict[int, Any] = {}
        self._values = [
            onnxruntime.OrtValue.ortvalue_from_shape_and_type([rows, heads, capacity, size], np.float32, "cpu", 0)
            for heads, size in zip(layout.heads, layout.head_sizes, strict=True)
        ]
        self.arrays: list[FloatArray] = [value.numpy() for value in self._values]  # views of the same memory
        self.addresses = [value.data_ptr() for value in self._values]
        if any(array.ctypes.data != at for array, at in zip(self.arrays, self.addresses, strict=True)):
            raise BackendError("this onnxruntime does not share its buffers with numpy: install a newer one")
        for array in self.arrays:
            array.fill(0.0)

    def copy_row(self, row: int, source: Cache, source_row: int, length: int) -> None:
        """Take over the first ``length`` tokens of a row of another cache, or of this one."""
        for to, of in zip(self.arrays, source.arrays, strict=True):
            to[row, :, :length] = of[source_row, :, :length]

    def grown(self, capacity: int, lengths: Sequence[int]) -> Cache:
        """A cache of ``capacity`` with the first ``lengths[row]`` tokens of each row."""
        larger = Cache(self.layout, self.rows, capacity)
        for row, length in enumerate(lengths):
            larger.copy_row(row, self, row, length)
        return larger


class Graph:
    """A loaded model; shareable between threads, as onnxruntime's sessions are."""

    def __init__(self, folder: OnnxFolder, n_threads: int | None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_threads or 0  # 0: one per physical core
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        options.enable_mem_pattern = False  # widths vary from run to run; a pattern for each would pile up
        try:
            self._session = onnxruntime.InferenceSession(
                os.fspath(folder.model_file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has many kinds without a common base
            raise ModelFileError(f"{folder.model_file}: onnxruntime cannot load it: {one_line(error)}") from None
        self.layout = _layout(folder, self._session)

    def _binding(self, cache: Cache, rows: int) -> Any:
        """The IOBinding of the first ``rows`` rows of ``cache`` as past and as present; made once and kept with it."""
        if rows in cache.bindings:
            return cache.bindings[rows]
        binding = cache.bindings[rows] = self._session.io_binding()
        layout = self.layout
        for index, address in enumerate(cache.addresses):
            shape = [rows, layout.heads[index], cache.capacity, layout.head_sizes[index]]
            binding.bind_input(layout.past[index], "cpu", 0, np.float32, shape, address)
            binding.bind_output(layout.present[index], "cpu", 0, np.float32, shape, address)
        return binding

    def run(
        self,
        cache: Cache,
        tokens: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
        outputs: Sequence[int],
        run_options: Any,
    ) -> tuple[FloatArray, FloatArray]:
        """Append ``tokens`` to the first rows of ``cache``.

        Args:
            cache: with room for the tokens.
            tokens: ``[rows, width]``; more than one token per row only with a single row.
            lengths: ``[rows]``, tokens of each row afterwards.
            outputs: columns of ``tokens`` whose results are wanted, at least one.
            run_options: ``onnxruntime.RunOptions``; setting ``terminate`` in another thread stops the run.

        Returns:
            Logits ``[rows, len(outputs), n_vocab]`` and states after the final norm ``[rows, len(outputs), n_embd]``.
        """
        n_rows, width = tokens.shape
        binding = self._binding(cache, n_rows)
        mask = (np.arange(int(lengths.max())) < lengths[:, None]).astype(np.int64)
        binding.bind_cpu_input("input_ids", np.ascontiguousarray(tokens))
        binding.bind_cpu_input("attention_mask", mask)
        binding.bind_cpu_input(ROWS_INPUT, np.array(outputs, dtype=np.int64))
        if self.layout.has_positions:
            positions = lengths[:, None] - width + np.arange(width)
            binding.bind_cpu_input("position_ids", np.ascontiguousarray(positions, dtype=np.int64))
        logits = np.empty((n_rows, len(outputs), self.layout.n_vocab), dtype=np.float32)
        hidden = np.empty((n_rows, len(outputs), self.layout.n_embd), dtype=np.float32)
        for name, array in (("logits", logits), ("hidden_states", hidden)):
            binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        self._session.run_with_iobinding(binding, run_options)
        return logits, hidden


def _layout(folder: OnnxFolder, session: Any) -> Layout:
    """Names and sizes of the graph's inputs and outputs. Raises ModelFileError where they are not what is expected."""
    inputs = {value.name: value for value in session.get_inputs()}
    outputs = {value.name: value for value in session.get_outputs()}

    def size(values: dict[str, Any], name: str, axis: int) -> int:
        value = values[name]
        found = value.shape[axis] if value.type == "tensor(float)" and axis < len(value.shape) else None
        if not isinstance(found, int) or found < 1:
            raise ModelFileError(
                f"{folder.model_file}: {name!r} has the type {value.type} and the shape {value.shape}, which RiM Edge "
                "does not run: make the folder with rim-edge convert onnx"
            )
        return found

    past = tuple(name for name in inputs if name.startswith(_PAST))
    present = tuple(_PRESENT + name[len(_PAST) :] for name in past)
    known = {*past, "input_ids", "attention_mask", "position_ids", ROWS_INPUT}
    strange = sorted(set(inputs) - known) + sorted(set(present) - set(outputs))
    if not past or len(past) % 2 or strange:
        what = f"unexpected input or missing output {strange[0]!r}" if strange else "no attention cache"
        raise ModelFileError(f"{folder.model_file}: the graph has {what}: make it with rim-edge convert onnx")
    return Layout(
        past=past,
        present=present,
        heads=tuple(size(inputs, name, 1) for name in past),
        head_sizes=tuple(size(inputs, name, 3) for name in past),
        n_vocab=size(outputs, "logits", 2),
        n_embd=size(outputs, "hidden_states", 2),
        has_positions="position_ids" in inputs,
    )


def one_line(error: BaseException) -> str:
    """The message of an error of onnxruntime, on one line and not too long."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."
