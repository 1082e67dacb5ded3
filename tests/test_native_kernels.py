"""Our matrix kernels, through ggml, against float64; skipped where the processor lacks their instructions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import instruction_sets
import numpy as np
import numpy.typing as npt
import pytest
from gguf.quants import dequantize
from shapes import make_model

from rim_edge import _native
from rim_edge.errors import OptionError

STATE = _native.kernels()
needs_kernels = pytest.mark.skipif(not STATE.active, reason=STATE.reason)
TYPES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
if "bf16" in STATE.types:  # on x86
    TYPES.append("BF16")
SUPER_BLOCKS = {"Q4_K", "Q5_K", "Q6_K"}
Floats = npt.NDArray[np.float32]


def bytes_of(kind: str, rows: int, inner: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Weights as in a file: every bit random, except for scales of an ordinary size and both signs."""
    rng = np.random.default_rng(seed)
    of = gguf.GGMLQuantizationType[kind]
    values, size = gguf.GGML_QUANT_SIZES[of]
    if kind == "BF16":
        floats = rng.standard_normal((rows, inner), dtype=np.float32)
        return (
            np.ascontiguousarray((floats.view(np.uint32) >> 16).astype(np.uint16))
            .view(np.uint8)
            .reshape(rows, inner * 2)
        )
    blocks = rng.integers(0, 256, (rows * inner // values, size), dtype=np.uint8)
    halves = {"Q4_1": [0, 2], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}.get(kind, [0])
    for at in halves:
        scale = rng.uniform(0.01, 0.1, len(blocks)) * rng.choice([-1, 1], len(blocks))
        blocks[:, at : at + 2] = scale.astype(np.float16)[:, None].view(np.uint8)
    return blocks.reshape(rows, -1)


def weights_of(kind: str, data: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    return dequantize(data, gguf.GGMLQuantizationType[kind]).astype(np.float64)


def seen(kind: str, values: Floats) -> npt.NDArray[np.float64]:
    """The activations that a kernel works with: signed bytes with a scale per 32 values, or BF16."""
    if kind == "BF16":
        bits = values.view(np.uint32).astype(np.uint64)
        rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).astype(np.uint32)
        return rounded.view(np.float32).astype(np.float64)
    blocks = values.reshape(len(values), -1, 32)
    largest = np.abs(blocks).max(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.where(
            largest > np.float32(127) * np.finfo(np.float32).tiny, np.float32(127) / largest, np.float32(0)
        )
    quants = np.rint(blocks * inverse.astype(np.float32)).astype(np.float64)
    return (quants * (largest / np.float32(127)).astype(np.float64)).reshape(values.shape)


def activations(n: int, inner: int, seed: int = 1) -> Floats:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, inner)) * rng.uniform(0.1, 10, (n, 1))).astype(np.float32)


def product(kind: str, data: npt.NDArray[np.uint8], values: Floats, n_threads: int = 1) -> Floats:
    return np.asarray(_native.kernel_product(kind.lower(), data, np.ascontiguousarray(values), n_threads))


@needs_kernels
@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 3, 8, 9, 17, 32, 40])
@pytest.mark.parametrize(
    "kinds",
    [
        ["Q4_0", "Q4_0", "Q4_0"],
        ["Q4_K", "Q6_K", "Q4_K", "Q4_K"],  # a layer's queries, values and keys in a mixture
        ["Q8_0", "Q4_0", "Q4_1", "Q5_K", "Q5_K", "Q8_0"],
    ],
)
def test_products_of_the_same_activations_are_those_alone(kinds: list[str], n: int, n_threads: int) -> None:
    """Prepared once for neighbours of a type, though rotating what a product gave uses the same work memory."""
    inner = 768
    sizes = [(96, 64, 83)[i % 3] for i in range(len(kinds))]
    data = [bytes_of(kind, rows, inner, i) for i, (kind, rows) in enumerate(zip(kinds, sizes, strict=True))]
    values = activations(n, inner)
    together = _native.kernel_products([kind.lower() for kind in kinds], data, values, n_threads)
    for kind, weights, found in zip(kinds, data, together, strict=True):
        np.testing.assert_array_equal(found, product(kind, weights, values))


@needs_kernels
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    ("rows", "inner", "n"),
    [(16, 256, 1), (48, 256, 2), (64, 512, 3), (80, 768, 4), (112, 2304, 7), (32, 256, 38), (83, 512, 9), (17, 256, 1)],
)
def test_products_are_those_of_the_quantized_values(kind: str, rows: int, inner: int, n: int) -> None:
    data, values = bytes_of(kind, rows, inner), activations(n, inner)
    weights, inputs = weights_of(kind, data), seen(kind, values)
    error = np.abs(product(kind, data, values) - inputs @ weights.T)
    assert (error <= 3e-6 * (np.abs(inputs) @ np.abs(weights).T)).all()


@needs_kernels
@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind not in SUPER_BLOCKS])
@pytest.mark.parametrize("inner", [32, 96, 288, 576])
def test_rows_of_any_whole_number_of_blocks(kind: str, inner: int) -> None:
    data, values = bytes_of(kind, 32, inner), activations(9, inner)
    weights, inputs = weights_of(kind, data), seen(kind, values)
    error = np.abs(product(kind, data, values) - inputs @ weights.T)
    assert (error <= 3e-6 * (np.abs(inputs) @ np.abs(weights).T)).all()


@needs_kernels
@pytest.mark.parametrize("kind", TYPES)
def test_a_result_does_not_depend_on_the_batch_or_the_threads(kind: str) -> None:
    data, values = bytes_of(kind, 147, 768), activations(75, 768)
    whole = product(kind, data, values)
    for n_threads in (2, 3):
        assert np.array_equal(product(kind, data, values, n_threads), whole)
    for cuts in ([1, 3, 6, 10, 15, 23], [37], [64], [72, 73, 74], [5, 55]):
        parts = [product(kind, data, part) for part in np.split(values, cuts)]
        assert np.array_equal(np.concatenate(parts), whole)


@needs_kernels
@pytest.mark.parametrize("n", [1, 2, 8])
@pytest.mark.parametrize("rows", [4096, 4107])
def test_a_large_product_of_few_tokens_is_shared_out_without_a_gap(n: int, rows: int) -> None:
    data, values = bytes_of("Q8_0", rows, 1024), activations(n, 1024)
    whole = product("Q8_0", data, values)
    weights, inputs = weights_of("Q8_0", data), seen("Q8_0", values)
    assert (np.abs(whole - inputs @ weights.T) <= 3e-6 * (np.abs(inputs) @ np.abs(weights).T)).all()
    for n_threads in (2, 3, 5):  # shares of 2 MB, of less than 1 MB
        assert np.array_equal(product("Q8_0", data, values, n_threads), whole)


@needs_kernels
@pytest.mark.parametrize("n", [1, 2, 3, 8])
@pytest.mark.parametrize("kind", ["Q4_0", "Q6_K", "Q8_0"])
def test_trying_both_ways_of_reading_changes_no_bit(kind: str, n: int) -> None:
    """The first products of a process alternate between them, then one holds."""
    data, values = bytes_of(kind, 512, 512), activations(n, 512)
    first = product(kind, data, values)
    for _ in range(80):
        assert (product(kind, data, values) == first).all()


@needs_kernels
@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind != "BF16"])
@pytest.mark.parametrize("byte", [0x00, 0x7F, 0x80, 0xFF])
def test_the_largest_quants_fit_into_every_sum(kind: str, byte: int) -> None:
    data = bytes_of(kind, 32, 256)
    of = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1]
    quants = {"Q4_1": (4, None), "Q5_1": (4, None), "Q4_K": (16, None), "Q5_K": (16, None), "Q6_K": (0, 192)}
    data.reshape(-1, of)[:, slice(*quants.get(kind, (2, None)))] = byte
    values = np.ones((9, 256), np.float32)  # the largest activations there are, of either sign
    values[1::2] = -1
    values[2, ::2] = -1
    weights, inputs = weights_of(kind, data), seen(kind, values)
    error = np.abs(product(kind, data, values) - inputs @ weights.T)
    assert (error <= 3e-6 * (np.abs(inputs) @ np.abs(weights).T)).all()


@needs_kernels
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_stays_visible_and_in_its_row(kind: str, bad: float) -> None:
    data, values = bytes_of(kind, 32, 256), activations(6, 256)
    good = product(kind, data, values)
    values[2, 77] = bad
    found = product(kind, data, values)
    assert not np.isfinite(found[2]).any()
    assert np.array_equal(np.delete(found, 2, axis=0), np.delete(good, 2, axis=0))


@needs_kernels
@pytest.mark.parametrize("kind", TYPES)
def test_zeros_and_denormals_give_next_to_nothing(kind: str) -> None:
    data = bytes_of(kind, 16, 256)
    values = np.zeros((5, 256), np.float32)
    values[1] = 1e-40
    values[2, 3] = np.finfo(np.float32).tiny
    values[3, ::2] = -1e-38
    found = product(kind, data, values)
    assert np.isfinite(found).all() and np.abs(found).max() < 1e-30
    assert (found[0] == 0).all()


@needs_kernels
@pytest.mark.parametrize("kind", TYPES)
def test_activations_of_very_different_sizes_in_one_row(kind: str) -> None:
    data, values = bytes_of(kind, 16, 512), activations(3, 512)
    values *= np.float32(10.0) ** np.random.default_rng(5).integers(-6, 7, (3, 16)).repeat(32, axis=1).astype(
        np.float32
    )
    weights, inputs = weights_of(kind, data), seen(kind, values)
    error = np.abs(product(kind, data, values) - inputs @ weights.T)
    assert (error <= 3e-6 * (np.abs(inputs) @ np.abs(weights).T)).all()


@needs_kernels
@pytest.mark.parametrize(
    ("kind", "rows", "inner"),
    [("Q8_0", 8, 64), ("Q4_K", 16, 128), ("F16", 16, 64), ("Q2_K", 16, 256)],
)
def test_what_has_no_kernel_is_refused(kind: str, rows: int, inner: int) -> None:
    with pytest.raises(OptionError, match="take no"):
        _native.kernel_product(kind.lower(), np.zeros((rows, 8), np.uint8), np.zeros((1, inner), np.float32))


LOGITS = """
import sys, numpy as np
from rim_edge import _native
model = _native.Model(sys.argv[1], use_mmap=sys.argv[3] == "mmap")
options = _native.SessionOptions(n_ctx=256, n_threads=1)
tokens = [int(token) for token in np.random.default_rng(0).integers(0, 256, 60)]
np.save(sys.argv[2], _native.batch_logits(model, tokens, options, list(range(60))))
print(_native.kernels().active, _native.kernels().reason)
"""


def run_apart(path: Path, to: Path, how: str = "mmap", **environment: str) -> tuple[str, Floats]:
    done = subprocess.run(
        [sys.executable, "-c", LOGITS, str(path), str(to), how],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout, np.load(to)


@needs_kernels
@pytest.mark.parametrize("outtype", ["q8_0", "q4_0", *(["bf16"] if "BF16" in TYPES else [])])
def test_a_model_says_the_same_with_and_without_them(folder: Path, outtype: str) -> None:
    path = make_model(folder / f"{outtype}.gguf", outtype=outtype)
    ours = run_apart(path, folder / "ours.npy")[1]
    unmapped = run_apart(path, folder / "unmapped.npy", "read")[1]
    said, theirs = run_apart(path, folder / "theirs.npy", RIM_EDGE_KERNELS="0")
    assert said.startswith("False") and "RIM_EDGE_KERNELS" in said
    assert np.array_equal(ours, unmapped)
    assert not np.array_equal(ours, theirs)  # else this test compares libllama with itself
    # both round activations to 8 bits (or BF16), and libllama rounds queries to half precision in attention; the
    # models are random, so their logits have no outliers
    assert np.abs(ours - theirs).max() < 0.15 * theirs.std()


SHAPES = [(16, 256, 1), (40, 512, 3), (64, 768, 8), (65, 512, 9), (112, 768, 16), (128, 256, 34)]


def examples(*kinds: str) -> dict[str, Floats]:
    return {
        f"{kind}/{rows}/{n}": product(kind, bytes_of(kind, rows, inner, seed=n), activations(n, inner))
        for kind in kinds
        for rows, inner, n in SHAPES
    }


@needs_kernels
@pytest.mark.parametrize("level", instruction_sets.LEVELS)
def test_every_instruction_set_gives_the_same_bits(level: str, tmp_path: Path) -> None:
    kinds = [kind for kind in TYPES if kind != "BF16"]
    there = instruction_sets.results(level, f"examples(*{kinds})", "test_native_kernels", tmp_path)
    for name, mine in examples(*kinds).items():
        assert np.array_equal(there[name], mine), name


@needs_kernels
@pytest.mark.parametrize("level", instruction_sets.LEVELS)
def test_bf16_with_each_instruction_set(level: str, tmp_path: Path) -> None:
    if "BF16" not in TYPES:
        pytest.skip("this processor does not multiply BF16")
    there = instruction_sets.results(level, "examples('BF16')", "test_native_kernels", tmp_path)
    for rows, inner, n in SHAPES:
        data, values = bytes_of("BF16", rows, inner, seed=n), activations(n, inner)
        weights, inputs = weights_of("BF16", data), seen("BF16", values)
        error = np.abs(there[f"BF16/{rows}/{n}"] - inputs @ weights.T)
        assert (error <= 3e-6 * (np.abs(inputs) @ np.abs(weights).T)).all()


def test_an_unknown_instruction_set_is_named() -> None:
    assert "RIM_EDGE_KERNELS=mmx is none of 0" in instruction_sets.reason("mmx")


def test_what_is_active_is_said() -> None:
    facts: dict[str, Any] = {name: getattr(STATE, name) for name in ("active", "instructions", "reason", "types")}
    assert facts["active"] == bool(facts["instructions"]) == bool(facts["types"]) == (not facts["reason"])


# ---- the softmax of a row


@pytest.mark.parametrize("n", [1, 15, 16, 17, 255, 257, 1003, 49155])
@pytest.mark.parametrize("spread", [0.0, 3.0, 40.0])
def test_statistics_of_a_row_are_those_of_its_softmax(n: int, spread: float) -> None:
    logits = np.random.default_rng(n).normal(5, spread, n).astype(np.float32)
    logits[n // 2 + 1 :: 7] = -np.inf
    logits[n // 2 + 2 :: 7] = np.nan
    said = _native.row_statistics(logits)
    seen = logits[np.isfinite(logits)].astype(np.float64)
    p = np.exp(seen - seen.max())
    log_sum = np.log(p.sum())
    entropy = log_sum - (p * (seen - seen.max())).sum() / p.sum()
    assert said == pytest.approx((seen.max(), log_sum, entropy), rel=1e-6, abs=1e-6)
    assert said == _native.row_statistics(logits, widest=False)
