"""The Hugging Face folder of a trained model: what transformers, ``convert/to_gguf.py`` and ``train/restore.py`` share.

Matrices and norms are stored as BF16, so weights must be BF16-representable already (``train.checkpoint.rounded``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from rim_edge.spec import RimSpec
from train.files import atomic_write
from train.model import ModelConfig
from train.tokenizer import END_OF_TEXT

END_OF_TEXT_ID = 0


def write_folder(
    folder: Path, config: ModelConfig, state: dict[str, Tensor], tokenizer_json: str, spec: RimSpec
) -> None:
    """Write config.json, model.safetensors, tokenizer files, generation_config.json, rim_config.json and any probe.

    ``state`` has the parameter names of ``train.model.Llama``. Raises ValueError for weights that BF16 cannot hold
    exactly, OSError where a file cannot be written.
    """
    for name, value in state.items():
        if not torch.equal(value.to(torch.bfloat16).float(), value.float()):
            raise ValueError(f"the weights of {name} are not exact in BF16: round them first")
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": value.to(torch.bfloat16).contiguous() for name, value in state.items()}
    _write(folder / "model.safetensors", safetensors.torch.save(tensors, metadata={"format": "pt"}))
    _write_json(folder / "config.json", llama_config(config))
    _write_json(
        folder / "generation_config.json",
        {"do_sample": False, "eos_token_id": END_OF_TEXT_ID, "pad_token_id": END_OF_TEXT_ID},
    )
    _write(folder / "tokenizer.json", tokenizer_json.encode())
    _write_json(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": False,
            "add_prefix_space": False,
            "bos_token": END_OF_TEXT,
            "clean_up_tokenization_spaces": False,
            "eos_token": END_OF_TEXT,
            "model_max_length": config.max_position_embeddings,
            "pad_token": END_OF_TEXT,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )
    _write_json(folder / "rim_config.json", spec.to_json())
    probe_file = folder / "rim_probe.safetensors"
    if spec.probe_weight is None or spec.probe_bias is None:
        probe_file.unlink(missing_ok=True)
    else:
        probe = {
            "weight": torch.from_numpy(np.array(spec.probe_weight)),
            "bias": torch.from_numpy(np.array(spec.probe_bias)),
        }
        _write(probe_file, safetensors.torch.save(probe))


def llama_config(config: ModelConfig) -> dict[str, Any]:
    """``config.json`` for transformers' ``LlamaForCausalLM``."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **config.as_dict(),
        "attention_bias": False,
        "bos_token_id": END_OF_TEXT_ID,
        "eos_token_id": END_OF_TEXT_ID,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "mlp_bias": False,
        "pad_token_id": END_OF_TEXT_ID,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
    }


def _write(path: Path, contents: bytes) -> None:
    with atomic_write(path) as stream:
        stream.write(contents)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    _write(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())
