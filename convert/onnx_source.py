"""The clean Hugging Face folder that the graph builder reads: one file of F32 tensors, a configuration, the tokenizer.

The builder (transformers, torch) never sees the user's folder: no pickles, no code of the model, no leftovers of other
modalities, and adapters and new memory tokens are merged already.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from .checkpoint import Checkpoint
from .failure import ConvertError
from .hf_folder import read_json_if_there
from .vocabulary import special_vocabulary

Progress = Callable[[int, int], None]

#: GGUF's name of an architecture to transformers' class and ``model_type``
CLASSES = {
    "llama": ("LlamaForCausalLM", "llama"),
    "qwen2": ("Qwen2ForCausalLM", "qwen2"),
    "qwen3": ("Qwen3ForCausalLM", "qwen3"),
    "gemma3": ("Gemma3ForCausalLM", "gemma3_text"),
}
#: rotary scalings that the builder computes, by architecture
ROPE_TYPES = {"llama": ("default", "llama3"), "qwen2": ("default",), "qwen3": ("default",), "gemma3": ("default",)}
_LEFT_OUT = ("quantization_config", "auto_map", "vision_config", "torch_dtype", "_name_or_path")


def check_buildable(checkpoint: Checkpoint) -> None:
    """Raise ConvertError, by name, for what the graph builder does not compute."""
    architecture = checkpoint.family.architecture
    if architecture not in CLASSES:
        raise ConvertError(
            f"{checkpoint.folder}: the ONNX graph builder has no {architecture}: convert this model to GGUF instead"
        )
    rope: Any = getattr(checkpoint.family, "rope", None)
    kind = rope(checkpoint.config)["rope_type"] if rope is not None else "default"
    if kind not in ROPE_TYPES[architecture]:
        raise ConvertError(
            f"{checkpoint.folder}: config.json scales rotary positions ({kind}), which the ONNX graph builder does "
            "not compute for "
            f"{architecture}: convert this model to GGUF instead"
        )


def write_source(checkpoint: Checkpoint, folder: Path, progress: Progress | None = None) -> list[int]:
    """Write the folder; returns the ids of the tokens that end an answer, the usual one first.

    ``progress`` gets bytes done and bytes in all. Raises ConvertError for weights that are not finite, OSError.
    """
    _write_tensors(checkpoint, folder / "model.safetensors", progress)
    class_name, model_type = CLASSES[checkpoint.family.architecture]
    config = {key: value for key, value in checkpoint.config.items() if key not in _LEFT_OUT}
    config |= {
        "architectures": [class_name],
        "model_type": model_type,
        "tie_word_embeddings": checkpoint.head is None,
        "vocab_size": checkpoint.n_vocab,
    }
    ends = _ends(checkpoint)
    config["eos_token_id"] = ends or None
    _write_json(folder / "config.json", config)
    write_tokenizer(checkpoint, folder)
    return ends


def write_tokenizer(checkpoint: Checkpoint, folder: Path) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json``; the chat template stands in the latter."""
    tokenizer, n_vocab = checkpoint.tokenizer, checkpoint.n_vocab
    memory = set(checkpoint.spec.memory_ids) if checkpoint.spec else set()
    added = [
        {**token, "special": token.get("special") or index in memory}
        for index, token in sorted(tokenizer.added.items())
        if index < n_vocab
    ]
    known = {token["id"] for token in added}
    for index in sorted(memory - known):  # a reserved token of the ordinary vocabulary
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        added.append({"id": index, "content": tokenizer.text_of(index), **flags})
    parsed = {
        **tokenizer.parsed,
        "added_tokens": sorted(added, key=lambda token: token["id"]),
        "truncation": None,
        "padding": None,
    }
    (folder / "tokenizer.json").write_text(json.dumps(parsed, ensure_ascii=False), encoding="utf-8")
    special = special_vocabulary(checkpoint, with_merges=False)
    named = {
        kind: tokenizer.text_of(special.special_token_ids[kind])
        for kind in ("bos", "eos")
        if kind in special.special_token_ids
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_bos_token": bool(special.add_special_token.get("bos")),
        **{f"{kind}_token": text for kind, text in named.items() if text is not None},
    }
    if isinstance(special.chat_template, str):
        config["chat_template"] = special.chat_template
    _write_json(folder / "tokenizer_config.json", config)


def _ends(checkpoint: Checkpoint) -> list[int]:
    """Ids of all tokens that the model's files name as an end."""
    special = special_vocabulary(checkpoint, with_merges=False)
    stated = [
        checkpoint.config.get("eos_token_id"),
        read_json_if_there(checkpoint.folder / "generation_config.json").get("eos_token_id"),
    ]
    found = [special.special_token_ids.get("eos")]
    for value in stated:
        found += value if isinstance(value, list) else [value]
    return list(dict.fromkeys(index for index in found if type(index) is int and 0 <= index < checkpoint.n_vocab))


def _write_tensors(checkpoint: Checkpoint, path: Path, progress: Progress | None) -> None:
    """Every tensor as F32, some megabytes at a time (https://huggingface.co/docs/safetensors gives the format)."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in sorted(checkpoint.tensors.items()):
        start, end = end, end + 4 * prod(tensor.shape)
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        done = 0
        for name, tensor in sorted(checkpoint.tensors.items()):
            for chunk in tensor.chunks():
                if not np.isfinite(chunk).all():
                    raise ConvertError(f"the tensor {name!r} holds NaN or infinite values: the checkpoint is damaged")
                data = np.ascontiguousarray(chunk, dtype="<f4")
                stream.write(data.data)
                done += data.nbytes
                if progress is not None:
                    progress(done, end)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
