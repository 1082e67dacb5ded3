"""The machine's limits, measured in the same run: bytes per second that it reads, operations per second that it does.

Two bandwidths: over a buffer far larger than the caches (``memory``), and over as many bytes as the model's weights
have (``model``), which small models find in a cache. Three kinds of matrix products, 2048 x 2048 with 512 columns, all
on the CPU with the same number of threads: numpy's BLAS in F32, ggml in F32, and ggml at the types of the model's own
weights, in the layout that libllama gives them. The peak is the fastest of them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

from rim_edge import _native, memory
from rim_edge.benchmark import machine
from rim_edge.benchmark.child import Child
from rim_edge.benchmark.work import Pass, Work
from rim_edge.errors import OptionError, UnsupportedError

SHAPE = (2048, 2048, 512)  # rows, inner, columns of the matrix products
_LEAST_BUFFER, _MOST_BUFFER = 256 << 20, 2 << 30
BLAS = "BLAS F32"
#: how the usual BLAS libraries are told their number of threads; they read it when they are loaded
_BLAS_THREADS = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


@dataclass(frozen=True)
class Limits:
    """What was measured with one number of threads; every list holds single samples.

    Attributes:
        n_threads: threads.
        memory_bytes, model_bytes: sizes of the two buffers.
        memory_rates, model_rates: bytes per second.
        products: kind of product to operations per second.
        shape: rows, inner size, columns of the products.
        blas: which library numpy uses.
    """

    n_threads: int
    memory_bytes: int
    model_bytes: int
    memory_rates: list[float]
    model_rates: list[float]
    products: dict[str, list[float]]
    shape: tuple[int, int, int] = SHAPE
    blas: str = ""

    @property
    def bandwidth(self) -> float:
        """Bytes per second over as many bytes as the weights have: the fastest sample, since it is a limit."""
        return max(self.model_rates)

    @property
    def peak(self) -> tuple[str, float]:
        """The fastest kind of product, and its operations per second in the fastest sample."""
        return max(((kind, max(rates)) for kind, rates in self.products.items()), key=lambda entry: entry[1])

    def seconds(self, work: Work, passes: Sequence[Pass]) -> float:
        """Least time that ``passes`` take on this machine: each is bound by its operations or by its bytes."""
        peak, bandwidth = self.peak[1], self.bandwidth
        return sum(max(work.operations(one) / peak, work.bytes(one) / bandwidth) for one in passes)

    def more(self, other: Limits) -> Limits:
        """These samples and those of ``other``, the same measurement at another time."""
        return Limits(
            self.n_threads,
            self.memory_bytes,
            self.model_bytes,
            self.memory_rates + other.memory_rates,
            self.model_rates + other.model_rates,
            {kind: rates + other.products.get(kind, []) for kind, rates in self.products.items()},
            self.shape,
            self.blas,
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, single samples included."""
        kind, peak = self.peak
        return {
            "n_threads": self.n_threads,
            "read_memory": {"buffer_bytes": self.memory_bytes, "bytes_per_s": self.memory_rates},
            "read_model": {"buffer_bytes": self.model_bytes, "bytes_per_s": self.model_rates},
            "products": {
                **dict(zip(("rows", "inner", "columns"), self.shape, strict=True)),
                "operations_per_s": self.products,
            },
            "blas": self.blas,
            "peak": {"kind": kind, "operations_per_s": peak},
        }


def measure(
    work: Work, n_threads: int, n_samples: int = 3, seconds: float = 0.1, shape: tuple[int, int, int] = SHAPE
) -> Limits:
    """Measure with ``n_threads``, in a child process that ends afterwards; about ``seconds`` per sample."""
    memory_bytes = large_buffer()
    model_bytes = min(memory_bytes, max(work.weight_bytes, 1 << 20))
    environment = dict.fromkeys(_BLAS_THREADS, str(n_threads))
    run = {"n_samples": n_samples, "seconds": seconds}
    with Child("rim_edge.benchmark.limits:Meter", {}, name="the machine's limits", environment=environment) as child:
        blas, rates = child.call("blas", shape=shape, **run)
        products: dict[str, list[float]] = {BLAS: rates}
        for kind in dict.fromkeys(["F32", *work.main_types()]):
            try:
                found = child.call("product", kind=kind, shape=shape, n_threads=n_threads, **run)
            except (OptionError, UnsupportedError):
                continue  # a type that ggml does not multiply by itself
            products[f"ggml {kind}"] = found
        memory_rates = child.call("read", n_bytes=memory_bytes, n_threads=n_threads, **run)
        model_rates = memory_rates
        if model_bytes < memory_bytes:
            model_rates = child.call("read", n_bytes=model_bytes, n_threads=n_threads, **run)
    return Limits(n_threads, memory_bytes, model_bytes, memory_rates, model_rates, products, shape, blas)


def large_buffer() -> int:
    """Bytes far more than the caches hold, and at most an eighth of the memory."""
    wanted = min(_MOST_BUFFER, max(_LEAST_BUFFER, 16 * (machine.last_cache_bytes() or 0)))
    return min(wanted, (memory.physical_bytes() or 8 * wanted) // 8)


class Meter:
    """Lives in the child process; each method returns one figure per sample."""

    def read(self, n_bytes: int, n_threads: int, n_samples: int, seconds: float) -> list[float]:
        """Bytes per second."""
        return list(_native.read_bandwidth(n_bytes, n_threads=n_threads, n_samples=n_samples, min_seconds=seconds))

    def product(self, kind: str, shape: Sequence[int], n_threads: int, n_samples: int, seconds: float) -> list[float]:
        """Operations per second of ggml."""
        rows, inner, columns = shape
        return list(
            _native.product_rate(
                kind,
                rows=rows,
                inner=inner,
                columns=columns,
                n_threads=n_threads,
                n_samples=n_samples,
                min_seconds=seconds,
            )
        )

    def blas(self, shape: Sequence[int], n_samples: int, seconds: float) -> tuple[str, list[float]]:
        """Name of numpy's BLAS, and its operations per second."""
        import numpy as np

        rows, inner, columns = shape
        random = np.random.default_rng(0)
        left = random.standard_normal((rows, inner), np.float32)
        right = random.standard_normal((inner, columns), np.float32)
        out = left @ right
        rates = []
        for _ in range(n_samples):
            began, n, taken = time.perf_counter(), 0, 0.0
            while taken < seconds or n == 0:
                np.matmul(left, right, out=out)
                n, taken = n + 1, time.perf_counter() - began
            rates.append(2.0 * rows * inner * columns * n / taken)
        config: Any = np.show_config(mode="dicts") if "mode" in signature(np.show_config).parameters else None
        blas = config.get("Build Dependencies", {}).get("blas", {}) if isinstance(config, dict) else {}
        return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip(), rates
