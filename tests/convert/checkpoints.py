"""Tiny checkpoints of every family, made by transformers, and what PyTorch computes with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from made_tokenizers import MEMORY_TEXTS, byte_level, save, sentencepiece
from safetensors.numpy import save_file
from tokenizers import Tokenizer

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()

FAMILIES = ["gpt2", "llama", "smollm", "qwen2", "qwen3", "gemma3"]
N_VOCAB = 512
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def tokenizer_of(family: str, extra: list[str] | None = None) -> Tokenizer:
    if family == "gemma3":
        return sentencepiece(extra)
    return byte_level({"gpt2": "gpt2", "llama": "llama3", "smollm": "smollm"}.get(family, "qwen2"), extra)


def config_of(family: str, n_vocab: int, **changes: Any) -> transformers.PretrainedConfig:
    common: dict[str, Any] = {
        "vocab_size": n_vocab,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    if family == "gpt2":
        gpt2 = {
            "vocab_size": n_vocab,
            "n_embd": 64,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 256,
            "initializer_range": 0.2,
        }
        return transformers.GPT2Config(**{**gpt2, "bos_token_id": None, "eos_token_id": None, **changes})
    if family == "llama":
        return transformers.LlamaConfig(**{**common, "rope_parameters": dict(LLAMA3_ROPE), **changes})
    if family == "smollm":
        return transformers.LlamaConfig(**{**common, "tie_word_embeddings": True, **changes})
    if family == "qwen2":
        return transformers.Qwen2Config(**{**common, **changes})
    if family == "qwen3":
        return transformers.Qwen3Config(**{**common, "head_dim": 32, **changes})
    gemma3 = {"head_dim": 32, "num_hidden_layers": 7, "sliding_window": 24, "query_pre_attn_scalar": 48}
    return transformers.Gemma3TextConfig(**{**common, **gemma3, **changes})


def model_of(family: str, n_vocab: int = N_VOCAB, seed: int = 0, **changes: Any) -> transformers.PreTrainedModel:
    """A randomly initialised model; norms and biases are random too, so that each of them shows."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config_of(family, n_vocab, **changes), dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
            elif family == "gpt2" and "h." in name:
                parameter.mul_(0.7)
    return model.eval()


def write_spec(folder: Path, tokenizer: Tokenizer, width: int, probe: bool = True, **fields: Any) -> None:
    """``rim_config.json`` and a random probe."""
    ids = [tokenizer.token_to_id(text) for text in MEMORY_TEXTS]
    stated = dict(zip(("begin_id", "memory_id", "end_id"), ids, strict=True)) | {
        "block_count": 4,
        "block_size": 2,
        **fields,
    }
    (folder / "rim_config.json").write_text(json.dumps(stated))
    if probe:
        random = np.random.default_rng(3)
        weight = random.standard_normal((stated["block_count"], width)).astype(np.float32)
        save_file(
            {"weight": weight, "bias": np.arange(stated["block_count"], dtype=np.float32)},
            folder / "rim_probe.safetensors",
        )


def write_checkpoint(
    folder: Path, family: str, seed: int = 0, shard: str | None = None, **changes: Any
) -> transformers.PreTrainedModel:
    """A RiM checkpoint with its tokenizer, metadata and probe."""
    model = model_of(family, seed=seed, **changes)
    save_kwargs = {"max_shard_size": shard} if shard else {}
    model.save_pretrained(folder, **save_kwargs)
    tokenizer = tokenizer_of(family, MEMORY_TEXTS)
    save(tokenizer, folder, eos_token="<eos>" if family == "gemma3" else "<|endoftext|>")
    write_spec(folder, tokenizer, 64)
    return model


def torch_logits(model: transformers.PreTrainedModel, tokens: list[int], rows: list[int]) -> npt.NDArray[np.float32]:
    """``[len(rows), n_vocab] float32`` of a plain causal pass."""
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0, rows]
    return np.asarray(logits.float().numpy())
