"""Operations and bytes of a pass, counted by hand; and what the machine's limits make of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from shapes import N_VOCAB, make_model

from rim_edge import _native
from rim_edge.benchmark import limits
from rim_edge.benchmark.limits import BLAS, Limits
from rim_edge.benchmark.work import Pass, Work, steps, text_pass


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]
    type: str = "F32"

    @property
    def size_bytes(self) -> int:
        n = 4
        for size in self.shape:
            n *= size
        return n


METADATA = {
    "general.architecture": "llama",
    "llama.embedding_length": 8,
    "llama.block_count": 2,
    "llama.attention.head_count": 2,
    "llama.attention.head_count_kv": 1,
    "llama.feed_forward_length": 16,
}
LAYER = [("attn_q", 8), ("attn_k", 4), ("attn_v", 4), ("attn_output", 8), ("ffn_up", 16), ("ffn_down", 16)]
TENSORS = [
    Tensor("token_embd.weight", (8, 100)),
    Tensor("output.weight", (8, 100)),
    Tensor("output_norm.weight", (8,)),
    *[Tensor(f"blk.{i}.{name}.weight", (8, rows)) for i in range(2) for name, rows in LAYER],
    Tensor("blk.0.attn_norm.weight", (8,)),
]
ATTENTION, FEED, HEAD = 8 * 24, 8 * 32, 8 * 100  # weights


def test_operations_of_a_text() -> None:
    work = Work(METADATA, TENSORS)
    every = 2 * (2 * ATTENTION + FEED)  # what all tokens meet; the last layer's feed-forward part is for outputs alone
    last = 2 * (FEED + HEAD)
    pairs = 3 * 4 / 2
    assert work.operations(text_pass(3, n_outputs=1)) == 3 * every + last + 4 * 2 * 8 * pairs
    assert work.operations(text_pass(3, n_outputs=2, n_past=5)) == 3 * every + 2 * last + 4 * 2 * 8 * (15 + pairs)


def test_bytes_of_a_text_are_all_matrices_once_and_the_cache() -> None:
    work = Work(METADATA, TENSORS, "f16")
    weights = 4 * (2 * (ATTENTION + FEED) + HEAD)
    cell = 2 * (4 + 4) * 2  # two layers, keys and values of one head, two bytes each
    assert work.weight_bytes == weights
    assert work.bytes(text_pass(3)) == weights + cell * 3
    assert work.bytes(text_pass(3, n_past=5)) == weights + cell * 8
    assert work.bytes(replace(text_pass(3), times=4)) == 4 * (weights + cell * 3)


def test_a_tied_head_is_the_table_of_embeddings() -> None:
    tied = Work(METADATA, [tensor for tensor in TENSORS if tensor.name != "output.weight"])
    assert tied.operations(text_pass(3)) == Work(METADATA, TENSORS).operations(text_pass(3))


def test_experts_count_as_far_as_they_are_used() -> None:
    metadata = METADATA | {"llama.expert_count": 8, "llama.expert_used_count": 2}
    dense = [tensor for tensor in TENSORS if ".0.ffn" not in tensor.name]
    work = Work(metadata, [*dense, Tensor("blk.0.ffn_up_exps.weight", (8, 16, 8))])
    without = Work(metadata, dense)
    one = text_pass(1)
    assert work.operations(one) - without.operations(one) == 2 * 8 * 16 * 2
    assert work.bytes(one) - without.bytes(one) == 4 * 8 * 16 * 2
    many = text_pass(100)
    assert work.bytes(many) - without.bytes(many) == 4 * 8 * 16 * 8  # never more than there are


def test_steps_see_a_longer_text_each_time() -> None:
    work = Work(METADATA, TENSORS)
    one_by_one = [text_pass(1, 1, n_past) for n_past in (10, 11, 12)]
    together = steps(3, 10)
    assert work.operations(together) == sum(map(work.operations, one_by_one))
    assert work.bytes(together) == sum(map(work.bytes, one_by_one))
    assert work.operations(steps(3, 10, 4)) == 4 * work.operations(together)


def test_types_with_most_of_the_operations() -> None:
    mixed = [replace(tensor, type="Q8_0" if tensor.name == "output.weight" else "Q4_0") for tensor in TENSORS]
    assert Work(METADATA, mixed).main_types() == ["Q4_0", "Q8_0"]
    assert Work(METADATA, mixed).main_types(0.6) == []


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3", "qwen3", "mamba"])
def test_every_matrix_of_a_file_is_counted(tmp_path: Path, architecture: str) -> None:
    file = _native.GgufFile(str(make_model(tmp_path / "m.gguf", architecture, outtype="f32")))
    work = Work(file.metadata, file.tensors)
    tables = ("token_embd.weight", "position_embd.weight")
    matrices = [t for t in file.tensors if len(t.shape) > 1 and t.name.endswith(".weight") and t.name not in tables]
    assert work.weight_bytes == sum(tensor.size_bytes for tensor in matrices)
    assert work.operations(text_pass(1)) > 2 * N_VOCAB


LIMITS = Limits(1, 100, 10, [50.0], [100.0], {BLAS: [1000.0, 3000.0, 2000.0], "ggml F32": [500.0]})


def test_a_pass_is_bound_by_operations_or_by_bytes() -> None:
    class Sizes(Work):
        def __init__(self) -> None:
            pass

        def operations(self, work: Pass) -> float:
            return 6000.0 * work.n_tokens

        def bytes(self, work: Pass) -> float:
            return 1000.0

    assert LIMITS.peak == (BLAS, 3000.0) and LIMITS.bandwidth == 100.0
    assert LIMITS.seconds(Sizes(), [text_pass(1)]) == 10.0  # bytes: 1000 / 100
    assert LIMITS.seconds(Sizes(), [text_pass(10)]) == 20.0  # operations: 60000 / 3000
    assert LIMITS.seconds(Sizes(), [text_pass(1), text_pass(10)]) == 30.0


def test_two_measurements_become_one() -> None:
    both = LIMITS.more(LIMITS)
    assert both.memory_rates == [50.0, 50.0] and both.products[BLAS] == [1000.0, 3000.0, 2000.0] * 2
    assert both.to_dict()["peak"] == {"kind": BLAS, "operations_per_s": 3000.0}


def test_limits_are_measured_for_the_types_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_LEAST_BUFFER", 1 << 20)
    monkeypatch.setattr(limits, "_MOST_BUFFER", 2 << 20)
    mixed = [replace(tensor, type="Q8_0") for tensor in TENSORS]
    found = limits.measure(Work(METADATA, mixed), 1, n_samples=2, seconds=0.0, shape=(32, 64, 4))
    assert list(found.products) == [BLAS, "ggml F32", "ggml Q8_0"]
    assert all(len(rates) == 2 and min(rates) > 0 for rates in found.products.values())
    assert len(found.memory_rates) == len(found.model_rates) == 2 and found.blas
