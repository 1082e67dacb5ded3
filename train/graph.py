"""Training steps on a GPU: a whole step, from the embeddings to the new weights, is one CUDA graph.

A small model leaves a GPU waiting for the next kernel to be launched; a graph launches all of a step at once. A graph
has fixed shapes, so samples are packed into rows of one width, and rows and targets are padded to what was needed
before; where a batch needs more, another graph is recorded. Worker processes make the batches ahead.
"""

from __future__ import annotations

import multiprocessing as mp
import signal
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from train.curriculum import Batch, Sample, lay_out, loss_sum
from train.model import Llama
from train.optim import Optimizer
from train.tokenizer import Vocabulary

AHEAD = 3  # batches that each worker process makes ahead
ROUND_TARGETS = 128  # targets of a layer are padded to multiples of it

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Arrays:
    """A batch as it travels from a worker process, unpadded.

    places: [6, B, T], tokens, positions and the four marks of ``Batch``. rows, targets: [R] and weights: [R] for every
    layer of ``taps``, number 0 being the readouts. The weights of a batch sum to 1. questions: how many it holds.
    """

    places: Ints
    taps: dict[int, tuple[Ints, Ints, Floats]]
    questions: int


def arrays_of(samples: list[Sample], vocabulary: Vocabulary, width: int, n_layers: int) -> Arrays:
    """``samples``, the longest first, packed into rows of ``width``. Raises ValueError where one is longer."""
    batch = lay_out(samples, vocabulary, width)
    total = sum(sample.total_weight for sample in samples)
    taps = {0: (batch.rows, batch.targets, batch.weights), **batch.taps}
    return Arrays(
        torch.cat([batch.tokens[None], batch.positions[None], batch.marks]).numpy().astype(np.int32),
        {
            layer: (rows.numpy().astype(np.int32), targets.numpy().astype(np.int32), (weights / total).numpy())
            for layer, (rows, targets, weights) in sorted(taps.items())
            if layer < n_layers
        },
        sum(len(sample.branches) for sample in samples),
    )


Shape = tuple[int, int, tuple[tuple[int, int], ...]]
"""Rows, their width, and for each layer of ``Arrays.taps`` how many targets."""


def shape_for(arrays: Arrays, before: Shape | None) -> Shape:
    """The shape that ``arrays`` is padded to: ``before`` where it fits, else grown to hold both."""
    _, rows, width = arrays.places.shape
    targets = {layer: len(found[0]) for layer, found in arrays.taps.items()}
    old = dict(before[2]) if before else {}
    if before and before[0] >= rows and all(old.get(layer, 0) >= n for layer, n in targets.items()):
        return before

    def grown(needed: int, had: int, step: int) -> int:
        return had if had >= needed else -(-(needed + needed // 16) // step) * step

    layers = sorted(targets.keys() | old.keys())
    return (
        grown(rows, before[0] if before else 0, 1),
        width,
        tuple((layer, grown(targets.get(layer, 0), old.get(layer, 0), ROUND_TARGETS)) for layer in layers),
    )


def padded(arrays: Arrays, shape: Shape) -> tuple[Ints, Floats]:
    """``arrays`` as flat integers (places, rows, targets) and flat weights, with the sizes of ``shape``.

    Padding rows belong to no sample; padding targets have no weight and stand at different places, as adding up many
    gradients in one place takes long.
    """
    n_rows, width, sizes = shape
    n_targets = sum(size for _, size in sizes)
    n_places = n_rows * width
    ints = np.zeros(6 * n_places + 2 * n_targets, np.int32)
    floats = np.zeros(n_targets, np.float32)
    places = ints[: 6 * n_places].reshape(6, n_rows, width)
    places[2] = -1
    places[:, : arrays.places.shape[1]] = arrays.places
    rows, targets = ints[6 * n_places :].reshape(2, n_targets)
    rows[:] = np.arange(n_targets) % n_places
    start = 0
    for layer, size in sizes:
        if layer in arrays.taps:
            found = arrays.taps[layer]
            part = slice(start, start + len(found[0]))
            rows[part], targets[part], floats[part] = found
        start += size
    return ints, floats


def batch_from(ints: Tensor, floats: Tensor, shape: Shape) -> Batch:
    """The batch of ``padded``'s arrays, on their device; without what only evaluation needs."""
    n_rows, width, sizes = shape
    n_places = n_rows * width
    places = ints[: 6 * n_places].view(6, n_rows, width).long()
    rows, targets = ints[6 * n_places :].view(2, -1).long()
    taps = {}
    start = 0
    for layer, size in sizes:
        part = slice(start, start + size)
        taps[layer] = (rows[part], targets[part], floats[part])
        start += size
    readouts = taps.pop(0)
    return Batch(places[0], places[1], places[2:], *readouts, torch.empty(0), [], taps)


class Ahead:
    """Batches in the order of their steps, made by worker processes ahead of their use.

    ``make(step, progress)`` must be picklable. ``begin`` is the first step.
    """

    def __init__(self, make: Callable[[int, float], Arrays], n_workers: int, begin: int) -> None:
        self._pool = mp.get_context("spawn").Pool(n_workers, signal.signal, (signal.SIGINT, signal.SIG_IGN))
        self._make, self._next = make, begin
        self._waiting: deque[Any] = deque()
        self._n_ahead = AHEAD * n_workers

    def take(self, progress: Callable[[int], float]) -> Arrays:
        """The next step's batch. ``progress`` of a step says how far the run will be then."""
        while len(self._waiting) < self._n_ahead:
            self._waiting.append(self._pool.apply_async(self._make, (self._next, progress(self._next))))
            self._next += 1
        arrays: Arrays = self._waiting.popleft().get()
        return arrays

    def close(self) -> None:
        """End the worker processes."""
        self._pool.terminate()
        self._pool.join()


class Recorded:
    """A training step of one shape, recorded as a CUDA graph."""

    def __init__(self, model: Llama, optimizer: Optimizer, shape: Shape, pool: Any) -> None:
        self.shape = shape
        n_targets = sum(size for _, size in shape[2])
        n_ints = 6 * shape[0] * shape[1] + 2 * n_targets
        self._ints = torch.zeros(n_ints, dtype=torch.int32, device="cuda")
        self._floats = torch.zeros(n_targets, device="cuda")
        self._pinned = torch.zeros(n_ints, dtype=torch.int32).pin_memory(), torch.zeros(n_targets).pin_memory()
        self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._model, self._optimizer, self._pool = model, optimizer, pool
        self._graph: torch.cuda.CUDAGraph | None = None
        self._loss = torch.zeros((), device="cuda")

    def fill(self, arrays: Arrays) -> None:
        """Hand the next batch to the GPU."""
        self._copied.synchronize()
        for pinned, found in zip(self._pinned, padded(arrays, self.shape), strict=True):
            pinned.numpy()[:] = found
        self._ints.copy_(self._pinned[0], non_blocking=True)
        self._floats.copy_(self._pinned[1], non_blocking=True)
        self._copied.record()

    def _gradients(self) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            loss = loss_sum(self._model, batch_from(self._ints, self._floats, self.shape))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def eager(self) -> Tensor:
        """The step without a graph; the optimizer's first must be such a one, as it makes its state."""
        self._model.zero_grad(set_to_none=True)
        loss = self._gradients()
        self._optimizer.apply()
        return loss

    def replay(self) -> Tensor:
        """The step, recorded at the first call."""
        if self._graph is None:
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(2):
                    self._model.zero_grad(set_to_none=True)
                    self._gradients()
            torch.cuda.current_stream().wait_stream(stream)
            self._model.zero_grad(set_to_none=True)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                self._loss.copy_(self._gradients())
                self._optimizer.apply()
            self._graph = graph
        self._graph.replay()
        return self._loss.clone()


class GraphSteps:
    """Training steps of one model with one optimizer."""

    def __init__(self, model: Llama, optimizer: Optimizer) -> None:
        self.model, self.optimizer = model, optimizer
        self._recorded: dict[Shape, Recorded] = {}
        self._shape: Shape | None = None
        self._pool = torch.cuda.graph_pool_handle()

    def shrink(self) -> None:
        """Forget what earlier batches needed: those to come are of another make."""
        self._shape = None

    def step(self, arrays: Arrays, scale: float) -> Tensor:
        """One step at ``scale`` of the learning rates; the loss per unit of weight, on the GPU."""
        self._shape = shape_for(arrays, self._shape)
        first = not self._recorded
        recorded = self._recorded.get(self._shape)
        if recorded is None:
            recorded = self._recorded[self._shape] = Recorded(self.model, self.optimizer, self._shape, self._pool)
        recorded.fill(arrays)
        self.optimizer.set_scale(scale)
        return recorded.eager() if first else recorded.replay()
