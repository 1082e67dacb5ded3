"""Logits at every block readout: converted files against PyTorch in FP32, for every family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from checkpoints import FAMILIES, LLAMA3_ROPE, model_of, tokenizer_of, write_checkpoint, write_spec
from made_tokenizers import MEMORY_TEXTS, save
from parity import check_parity, readout_logits
from rim_edge.convert.to_gguf import convert


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_computes_what_pytorch_computes(family: str, tied: bool, tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "hf", family, tie_word_embeddings=tied)
    convert(tmp_path / "hf", tmp_path / "model.gguf", "f32")
    check_parity(tmp_path / "model.gguf", model, family)


CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("gpt2", {"n_inner": 160}),
    ("llama", {"attention_bias": True, "mlp_bias": True}),
    (
        "llama",
        {"num_key_value_heads": 4, "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}},
    ),
    (
        "llama",
        {"head_dim": 32, "rope_parameters": {**LLAMA3_ROPE, "factor": 8.0, "original_max_position_embeddings": 16}},
    ),
    ("smollm", {"num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 448}),
    (
        "qwen2",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e6,
                "factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    ("qwen3", {"head_dim": 16, "num_key_value_heads": 1}),
    ("gemma3", {"query_pre_attn_scalar": 32, "sliding_window": 8}),
    (
        "gemma3",
        {"layer_types": ["full_attention", "sliding_attention"] * 3, "num_hidden_layers": 6, "sliding_window": 12},
    ),
    ("gemma3", {"final_logit_softcapping": 5.0, "num_attention_heads": 2}),
    (
        "gemma3",
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 50000.0, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
            }
        },
    ),
]


@pytest.mark.parametrize(("family", "changes"), CHANGES)
def test_variants_compute_what_pytorch_computes(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "hf", family, **changes)
    convert(tmp_path / "hf", tmp_path / "model.gguf", "f32")
    check_parity(tmp_path / "model.gguf", model, family)


def test_shards_written_by_transformers_are_read(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "hf", "llama", shard="100KB")
    assert len(list((tmp_path / "hf").glob("model-*.safetensors"))) > 1
    convert(tmp_path / "hf", tmp_path / "model.gguf", "f32")
    check_parity(tmp_path / "model.gguf", model, "llama")


def test_a_checkpoint_in_bf16_is_exact(tmp_path: Path) -> None:
    model_of("qwen3").to(torch.bfloat16).save_pretrained(tmp_path / "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)
    tokenizer = tokenizer_of("qwen3", MEMORY_TEXTS)
    save(tokenizer, tmp_path / "hf")
    write_spec(tmp_path / "hf", tokenizer, 64)
    convert(tmp_path / "hf", tmp_path / "model.gguf", "f32")
    check_parity(tmp_path / "model.gguf", model, "qwen3")


def test_a_checkpoint_saved_without_its_head_is_read(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "hf", "smollm")
    model.model.save_pretrained(tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "model.gguf", "f32")
    check_parity(tmp_path / "model.gguf", model, "smollm")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_plain_model_extended_here_equals_one_extended_in_transformers(family: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(family)
    n_vocab = tokenizer.get_vocab_size()
    model = model_of(family, n_vocab)
    model.save_pretrained(tmp_path / "hf")
    save(tokenizer, tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "model.gguf", "f32", blocks=3, block_size=2)
    model.resize_token_embeddings(n_vocab + 3, mean_resizing=False)
    with torch.no_grad():
        for module in (model.get_input_embeddings(), model.get_output_embeddings()):
            module.weight[n_vocab:] = module.weight[:n_vocab].double().mean(0).float()
    check_parity(tmp_path / "model.gguf", model, family)


@pytest.mark.parametrize(("outtype", "worst"), [("f16", 0.02), ("bf16", 0.1), ("q8_0", 0.1)])
def test_smaller_types_stay_close(outtype: str, worst: float, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "hf", "llama")
    convert(tmp_path / "hf", tmp_path / "f32.gguf", "f32")
    convert(tmp_path / "hf", tmp_path / "model.gguf", outtype)
    exact, _ = readout_logits(tmp_path / "f32.gguf", list(range(40)))
    ours, _ = readout_logits(tmp_path / "model.gguf", list(range(40)))
    assert np.abs(ours - exact).max() <= worst * (exact.max() - exact.min())
