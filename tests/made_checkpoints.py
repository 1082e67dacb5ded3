"""Checkpoints made with numpy alone, for what needs no forward pass: names, shapes, tokenizers, damage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from made_tokenizers import MEMORY_TEXTS, byte_level, save, sentencepiece
from rim_edge.convert.families import family_of
from safetensors.numpy import save_file
from tokenizers import Tokenizer

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 448,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128, "vocab_size": 448}


def tensors_of(config: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Random tensors of every name and shape that a checkpoint of ``config`` has."""
    family = family_of(config)
    config = family.text_config(config)
    shapes = dict(family.shapes(config))
    shapes[family.embedding] = (config["vocab_size"], family.width(config))
    if not family.is_tied(config):
        shapes[family.head] = shapes[family.embedding]
    random = np.random.default_rng(seed)
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def write_plain(folder: Path, tokenizer: Tokenizer | None = None, **changes: Any) -> dict[str, Any]:
    """A plain model's folder; returns its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**CONFIG, **changes}
    (folder / "config.json").write_text(json.dumps(config))
    save(tokenizer or byte_level("smollm"), folder, eos_token="<|endoftext|>")
    tensors = tensors_of(config)
    save_file(tensors, folder / "model.safetensors")
    return tensors


def write_rim(folder: Path, probe: bool = True, spec: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A RiM model's folder, its probe included; returns its tensors."""
    sentence_pieces = str(changes.get("model_type", "")).startswith("gemma3")
    tokenizer = sentencepiece(MEMORY_TEXTS, 400) if sentence_pieces else byte_level("smollm", MEMORY_TEXTS)
    tensors = write_plain(folder, tokenizer, **changes)
    ids = dict(zip(("begin_id", "memory_id", "end_id"), map(tokenizer.token_to_id, MEMORY_TEXTS), strict=True))
    (folder / "rim_config.json").write_text(json.dumps({**ids, "block_count": 4, "block_size": 3, **(spec or {})}))
    if probe:
        weight = np.arange(4 * 32, dtype=np.float32).reshape(4, 32)
        save_file({"weight": weight, "bias": np.arange(4, dtype=np.float32)}, folder / "rim_probe.safetensors")
    return tensors
