"""Write a GGUF of a given shape with random weights, for measuring time and memory: its answers mean nothing.

    python bench/random_model.py OUT.gguf [--shape llama-1b] [--type q4_0] [--blocks 8]

Takes seconds, because the quantized bytes themselves are drawn. The vocabulary holds the bytes and fillers. As in
llama.cpp's files of these types, embeddings are finer than matrices, and so are some matrices of q4_k_m.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Kind


@dataclass(frozen=True)
class Shape:
    """Sizes of a model, written as one of the Llama family with tied embeddings."""

    layers: int
    width: int
    feed_forward: int
    heads: int
    groups: int
    head_size: int
    vocabulary: int


SHAPES = {
    "llama-1b": Shape(16, 2048, 8192, 32, 8, 64, 128256),  # Llama-3.2-1B
    "llama-3b": Shape(28, 3072, 8192, 24, 8, 128, 128256),  # Llama-3.2-3B
    "qwen2.5-0.5b": Shape(24, 896, 4864, 14, 2, 64, 151936),
    "qwen3-0.6b": Shape(28, 1024, 3072, 16, 8, 128, 151936),
    "smollm2-135m": Shape(30, 576, 1536, 9, 3, 64, 49152),
    "smollm2-360m": Shape(32, 960, 2560, 15, 5, 64, 49152),
    "tinyllama-1.1b": Shape(22, 2048, 5632, 32, 4, 64, 32000),
}
TYPES = {
    "q4_0": Kind.Q4_0,
    "q4_1": Kind.Q4_1,
    "q5_0": Kind.Q5_0,
    "q5_1": Kind.Q5_1,
    "iq4_nl": Kind.IQ4_NL,
    "q8_0": Kind.Q8_0,
    "q4_k_m": Kind.Q4_K,
    "q5_k": Kind.Q5_K,
    "q6_k": Kind.Q6_K,
    "bf16": Kind.BF16,
}
"""File type to the type of most matrices."""
BLOCKS = {
    Kind.Q4_0: (8, 0),
    Kind.Q4_1: (8, 0, 2),
    Kind.Q5_0: (16, 0),
    Kind.Q5_1: (16, 0, 2),
    Kind.IQ4_NL: (128, 0),
    Kind.Q8_0: (128, 0),
    Kind.Q4_K: (8 * 8, 0, 2),
    Kind.Q5_K: (16 * 8, 0, 2),
    Kind.Q6_K: (32 * 64, 208),
}
"""What a block's scale is multiplied by at most, roughly; where that scale is, and a minimum, in half precision."""


def matrix(kind: Kind, rows: int, columns: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Random blocks with scales that keep activations of an ordinary size."""
    size = 0.8 / columns**0.5
    if kind is Kind.BF16:
        drawn = rng.standard_normal((rows, columns), np.float32) * np.float32(size / 2)
        halves: npt.NDArray[np.uint8] = (drawn.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
        return halves
    values, n_bytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (rows * columns // values, n_bytes), dtype=np.uint8)
    largest, scale, *minima = BLOCKS[kind]
    blocks[:, scale : scale + 2] = np.frombuffer(np.float16(size / largest).tobytes(), np.uint8)
    for at in minima:
        blocks[:, at : at + 2] = 0  # the sums of activations would grow from layer to layer
    if kind in (Kind.Q4_K, Kind.Q5_K):
        blocks[:, 4:16] &= 0x0F
    return blocks.reshape(rows, -1)


def write(path: Path, shape: Shape, type_name: str, block_count: int) -> None:
    kind = TYPES[type_name]
    widths = (shape.width, shape.feed_forward)
    if any(width % gguf.GGML_QUANT_SIZES[kind][0] for width in widths):
        raise SystemExit(f"random_model: rows of {widths} values do not fit the blocks of {type_name}")
    embedding = kind if kind in (Kind.Q8_0, Kind.BF16) else Kind.Q6_K if shape.width % 256 == 0 else Kind.Q8_0
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_type("model")
    writer.add_name(f"random weights, {type_name}")
    writer.add_context_length(8192)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.groups)
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.head_size)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_rope_freq_base(500000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(shape.vocabulary)
    _vocabulary(writer, shape.vocabulary, block_count)

    def add(name: str, rows: int, columns: int, of: Kind = kind) -> None:
        writer.add_tensor(f"{name}.weight", matrix(of, rows, columns, rng), raw_dtype=of)

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(shape.width, np.float32))

    add("token_embd", shape.vocabulary, shape.width, embedding)
    for layer in range(shape.layers):
        finer = embedding if type_name == "q4_k_m" and layer % 2 == 0 else kind
        block = f"blk.{layer}"
        norm(f"{block}.attn_norm")
        add(f"{block}.attn_q", shape.heads * shape.head_size, shape.width)
        add(f"{block}.attn_k", shape.groups * shape.head_size, shape.width)
        add(f"{block}.attn_v", shape.groups * shape.head_size, shape.width, finer)
        add(f"{block}.attn_output", shape.width, shape.heads * shape.head_size)
        norm(f"{block}.ffn_norm")
        add(f"{block}.ffn_gate", shape.feed_forward, shape.width)
        add(f"{block}.ffn_up", shape.feed_forward, shape.width)
        add(f"{block}.ffn_down", shape.width, shape.feed_forward, finer)
    norm("output_norm")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _vocabulary(writer: gguf.GGUFWriter, n_tokens: int, block_count: int) -> None:
    """The byte-level alphabet, fillers, an end of text, and the three memory tokens at the end."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]
    special = ["<|endoftext|>", "<|rim_begin|>", "<|rim_memory|>", "<|rim_end|>"]
    tokens = letters + [f"filler{index}" for index in range(n_tokens - len(letters) - len(special))] + special
    control = n_tokens - len(special)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * control + [gguf.TokenType.CONTROL] * len(special))
    writer.add_token_merges([f"{letters[0]} {letters[1]}"])
    writer.add_eos_token_id(control)
    if block_count:
        writer.add_uint32("rim.version", 1)
        for name, value in (("block_count", block_count), ("max_block_count", block_count), ("block_size", 2)):
            writer.add_uint32(f"rim.{name}", value)
        for name, token in (("begin", control + 1), ("memory", control + 2), ("end", control + 3)):
            writer.add_uint32(f"rim.token.{name}_id", token)
        writer.add_string("rim.prompt_template", "{{ question }}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="llama-1b")
    parser.add_argument("--type", choices=TYPES, default="q4_0")
    parser.add_argument("--blocks", type=int, default=8, help="memory blocks, 0: a plain model (default 8)")
    arguments = parser.parse_args()
    write(arguments.output, SHAPES[arguments.shape], arguments.type, arguments.blocks)


if __name__ == "__main__":
    main()
