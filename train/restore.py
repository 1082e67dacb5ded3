"""Restore the Hugging Face folder from a BF16 GGUF that this recipe made.

    python -m train.restore rim-tiny.gguf -o DIR

Converting the folder again gives the same file, byte for byte.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor

from convert.families.llama import to_halves
from rim_edge.errors import SpecError
from rim_edge.spec import RimSpec
from train.folder import write_folder
from train.model import Llama, ModelConfig
from train.tokenizer import assemble_json


def restore(file: Path, folder: Path) -> None:
    """Write the Hugging Face folder of ``file``. Raises ValueError or SpecError with one line, or OSError."""
    reader = _open(file)
    metadata = {name: _value(field) for name, field in reader.fields.items()}
    _check(file, metadata)
    config = ModelConfig(
        vocab_size=metadata["llama.vocab_size"],
        hidden_size=metadata["llama.embedding_length"],
        intermediate_size=metadata["llama.feed_forward_length"],
        num_hidden_layers=metadata["llama.block_count"],
        num_attention_heads=metadata["llama.attention.head_count"],
        num_key_value_heads=metadata["llama.attention.head_count_kv"],
        rms_norm_eps=shortest(metadata["llama.attention.layer_norm_rms_epsilon"]),
        rope_theta=shortest(metadata["llama.rope.freq_base"]),
        max_position_embeddings=metadata["llama.context_length"],
    )
    spec = RimSpec.from_gguf(metadata, config.hidden_size)
    if spec is None:
        raise ValueError(f"{file} has no memory-slot metadata: it was not made by train.export")
    vocabulary = {text: index for index, text in enumerate(metadata["tokenizer.ggml.tokens"])}
    merges = [(left, right) for left, right in (merge.split(" ") for merge in metadata["tokenizer.ggml.merges"])]
    write_folder(folder, config, _weights(file, reader, config), assemble_json(vocabulary, merges), spec)


def _open(file: Path) -> gguf.GGUFReader:
    try:
        return gguf.GGUFReader(file)
    except OSError:
        raise
    except Exception as error:  # the reader raises many kinds for a file that is no GGUF
        raise ValueError(f"{file} is no readable GGUF file ({error})") from None


def _value(field: gguf.ReaderField) -> Any:
    """A metadata value as RimSpec.from_gguf takes it: Python scalars and lists, float arrays as numpy."""
    contents = field.contents()
    if field.types[-1] == gguf.GGUFValueType.FLOAT32 and isinstance(contents, list):
        return np.array(contents, dtype=np.float32)
    return contents


def _check(file: Path, metadata: dict[str, Any]) -> None:
    expected = {
        "general.architecture": "llama",
        "general.file_type": int(gguf.LlamaFileType.MOSTLY_BF16),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
    }
    for key, value in expected.items():
        if metadata.get(key) != value:
            raise ValueError(f"{file}: {key} is {metadata.get(key)!r}, only {value!r} can be restored")


def shortest(value: float) -> float:
    """The shortest decimal that gives the same float32 (1e-05 instead of 9.999999747378752e-06)."""
    return float(str(np.float32(value)))


def _weights(file: Path, reader: gguf.GGUFReader, config: ModelConfig) -> dict[str, Tensor]:
    """The model's parameters, float32, in transformers' layout."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    stored = {tensor.name: tensor for tensor in reader.tensors}
    with torch.device("meta"):
        wanted = dict(Llama(config).named_parameters())
    state = {}
    for name, parameter in wanted.items():
        target = names.get_name(f"model.{name}", try_suffixes=(".weight",))
        if target not in stored:
            raise ValueError(f"{file} lacks the tensor {target!r}")
        data = gguf.dequantize(stored[target].data, stored[target].tensor_type)
        if data.size != parameter.numel():
            raise ValueError(f"{file}: the tensor {target!r} has {data.size} values, expected {parameter.numel()}")
        if name.endswith("q_proj.weight"):
            data = to_halves(data, config.num_attention_heads)
        elif name.endswith("k_proj.weight"):
            data = to_halves(data, config.num_key_value_heads)
        state[name] = torch.from_numpy(np.array(data, dtype=np.float32)).reshape(parameter.shape)
    return state


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.restore",
        description="Restore the Hugging Face folder from a BF16 GGUF that train.export and to_gguf.py made.",
        epilog="example: python -m train.restore rim_edge/models/rim-tiny.gguf -o rim-tiny-hf",
    )
    parser.add_argument("file", type=Path, help="the GGUF file")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder to write")
    options = parser.parse_args(arguments)
    try:
        restore(options.file, options.output)
    except (OSError, ValueError, KeyError, SpecError) as error:
        print(f"train.restore: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
