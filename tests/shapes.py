"""Tiny models with random weights, written with gguf-py: one per shape that the native code must cope with.

They are not trained, so their answers mean nothing, but they are deterministic in ``seed`` and load in milliseconds.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from rim_edge.spec import BEGIN_TEXT, END_TEXT, MEMORY_TEXT, RimSpec

ARCHITECTURES = ("llama", "gpt2", "gemma3", "qwen2", "qwen3", "mamba")
RECURRENT = "mamba"

END_OF_TEXT = "<|endoftext|>"
TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"
CONTROL_TEXTS = (END_OF_TEXT, TURN_START, TURN_END, BEGIN_TEXT, MEMORY_TEXT, END_TEXT)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PROMPT_TEMPLATE = "Question: {{ question }}\nAnswer:"

#: words that the byte-level vocabulary has as one token, next to all bytes
WORDS = (
    "the",
    "and",
    "has",
    "apples",
    " the",
    " and",
    " has",
    " apples",
    " many",
    " how",
    " Tom",
    " 1",
    " 2",
    "\n\n",
    "é",
)

MATRIX_TYPES = {
    "f32": gguf.GGMLQuantizationType.F32,
    "f16": gguf.GGMLQuantizationType.F16,
    "bf16": gguf.GGMLQuantizationType.BF16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
    "q4_0": gguf.GGMLQuantizationType.Q4_0,
}
FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
}

FloatArray = npt.NDArray[np.float32]


# ---- vocabulary ------------------------------------------------------------------------------------------------------


def byte_letters() -> list[str]:
    """The printable character that stands for each byte in a byte-level vocabulary (GPT-2's table)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters, extra = [], 0
    for byte in range(256):
        if byte in plain:
            letters.append(chr(byte))
        else:
            letters.append(chr(256 + extra))
            extra += 1
    return letters


def _merged(pieces: list[str], merges: list[str]) -> list[str]:
    """What byte-pair encoding with ``merges`` makes of ``pieces``."""
    for merge in merges:
        left, right = merge.split(" ")
        at = 0
        while at + 1 < len(pieces):
            if pieces[at : at + 2] == [left, right]:
                pieces[at : at + 2] = [left + right]
            at += 1
    return pieces


def bpe_vocabulary() -> tuple[list[str], list[str], list[int]]:
    """Tokens, merges and token types: all bytes, the pieces of WORDS, then the control tokens."""
    letters = byte_letters()
    tokens = list(letters)
    merges: list[str] = []
    for word in WORDS:
        pieces = _merged([letters[byte] for byte in word.encode()], merges)
        left = pieces[0]
        for right in pieces[1:]:
            merges.append(f"{left} {right}")
            left += right
            if left not in tokens:
                tokens.append(left)
    types = [gguf.TokenType.NORMAL.value] * len(tokens) + [gguf.TokenType.CONTROL.value] * len(CONTROL_TEXTS)
    return tokens + list(CONTROL_TEXTS), merges, types


TOKENS, MERGES, TOKEN_TYPES = bpe_vocabulary()
N_VOCAB = len(TOKENS)


def token_id(text: str) -> int:
    """Id of a control token, or of a word in WORDS."""
    if text in CONTROL_TEXTS:
        return TOKENS.index(text)
    letters = byte_letters()
    return TOKENS.index("".join(letters[byte] for byte in text.encode()))


def default_spec(**fields: Any) -> RimSpec:
    """The memory-slot metadata of ``make_model`` (K = 4, M = 2, at most 8 blocks), with ``fields`` replaced."""
    values: dict[str, Any] = {
        "begin_id": token_id(BEGIN_TEXT),
        "memory_id": token_id(MEMORY_TEXT),
        "end_id": token_id(END_TEXT),
        "block_count": 4,
        "max_block_count": 8,
        "block_size": 2,
        "prompt_template": PROMPT_TEMPLATE,
    }
    return RimSpec(**(values | fields))


def random_probe(n_blocks: int, n_embd: int, seed: int = 0) -> dict[str, FloatArray]:
    """``probe_weight [n_blocks, n_embd]`` and ``probe_bias [n_blocks]`` for ``default_spec``."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(0, 1 / np.sqrt(n_embd), (n_blocks, n_embd)).astype(np.float32)
    return {"probe_weight": weight, "probe_bias": rng.normal(0, 0.1, n_blocks).astype(np.float32)}


# ---- tensors ---------------------------------------------------------------------------------------------------------


class _Shape:
    """Sizes of one tiny model."""

    def __init__(self, n_embd: int, n_layer: int, n_head: int, n_head_kv: int, n_ctx: int) -> None:
        self.n_embd, self.n_layer, self.n_head, self.n_head_kv, self.n_ctx = n_embd, n_layer, n_head, n_head_kv, n_ctx
        self.head = n_embd // n_head
        self.kv = self.head * n_head_kv
        self.ff = 2 * n_embd
        self.inner, self.state, self.rank, self.conv = 2 * n_embd, 16, 32, 4  # mamba


def _layer(arch: str, s: _Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and numpy shapes ``[rows, columns]`` of the tensors of one layer."""
    yield "attn_norm.weight", (s.n_embd,)
    if arch == "mamba":
        yield "ssm_in.weight", (2 * s.inner, s.n_embd)
        yield "ssm_conv1d.weight", (s.inner, s.conv)
        yield "ssm_conv1d.bias", (s.inner,)
        yield "ssm_x.weight", (s.rank + 2 * s.state, s.inner)
        yield "ssm_dt.weight", (s.inner, s.rank)
        yield "ssm_dt.bias", (s.inner,)
        yield "ssm_a", (s.inner, s.state)
        yield "ssm_d", (s.inner,)
        yield "ssm_out.weight", (s.n_embd, s.inner)
        return
    if arch == "gpt2":
        yield "attn_norm.bias", (s.n_embd,)
        yield "attn_qkv.weight", (3 * s.n_embd, s.n_embd)
        yield "attn_qkv.bias", (3 * s.n_embd,)
        yield "attn_output.weight", (s.n_embd, s.n_embd)
        yield "attn_output.bias", (s.n_embd,)
        yield "ffn_norm.weight", (s.n_embd,)
        yield "ffn_norm.bias", (s.n_embd,)
        yield "ffn_up.weight", (s.ff, s.n_embd)
        yield "ffn_up.bias", (s.ff,)
        yield "ffn_down.weight", (s.n_embd, s.ff)
        yield "ffn_down.bias", (s.n_embd,)
        return
    for name, rows in (("q", s.n_embd), ("k", s.kv), ("v", s.kv)):
        yield f"attn_{name}.weight", (rows, s.n_embd)
        if arch == "qwen2":
            yield f"attn_{name}.bias", (rows,)
    yield "attn_output.weight", (s.n_embd, s.n_embd)
    if arch in ("qwen3", "gemma3"):
        yield "attn_q_norm.weight", (s.head,)
        yield "attn_k_norm.weight", (s.head,)
    if arch == "gemma3":
        yield "post_attention_norm.weight", (s.n_embd,)
        yield "post_ffw_norm.weight", (s.n_embd,)
    yield "ffn_norm.weight", (s.n_embd,)
    yield "ffn_gate.weight", (s.ff, s.n_embd)
    yield "ffn_up.weight", (s.ff, s.n_embd)
    yield "ffn_down.weight", (s.n_embd, s.ff)


def _tensors(arch: str, s: _Shape, n_vocab: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "token_embd.weight", (n_vocab, s.n_embd)
    if arch == "gpt2":
        yield "position_embd.weight", (s.n_ctx, s.n_embd)
        yield "output_norm.bias", (s.n_embd,)
    yield "output_norm.weight", (s.n_embd,)
    yield "output.weight", (n_vocab, s.n_embd)
    for i in range(s.n_layer):
        for name, shape in _layer(arch, s):
            yield f"blk.{i}.{name}", shape


def _values(name: str, shape: tuple[int, ...], seed: int) -> FloatArray:
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if name.endswith("ssm_a"):
        return (-rng.uniform(0.5, 4, shape)).astype(np.float32)
    if "norm" in name and name.endswith("weight"):
        return rng.normal(1, 0.1, shape).astype(np.float32)
    if len(shape) == 1:
        return rng.normal(0, 0.1, shape).astype(np.float32)
    scale = {"token_embd.weight": 1.0, "position_embd.weight": 0.3, "output.weight": 3 / np.sqrt(shape[1])}
    return rng.normal(0, scale.get(name, 1.5 / np.sqrt(shape[1])), shape).astype(np.float32)


# ---- files -----------------------------------------------------------------------------------------------------------


def _hyperparameters(writer: gguf.GGUFWriter, arch: str, s: _Shape, sliding_window: int) -> None:
    writer.add_context_length(s.n_ctx)
    writer.add_embedding_length(s.n_embd)
    writer.add_block_count(s.n_layer)
    writer.add_feed_forward_length(0 if arch == "mamba" else s.ff)
    writer.add_head_count(0 if arch == "mamba" else s.n_head)
    if arch == "gpt2":
        writer.add_layer_norm_eps(1e-5)
    else:
        writer.add_layer_norm_rms_eps(1e-5)
    if arch == "mamba":
        writer.add_ssm_conv_kernel(s.conv)
        writer.add_ssm_inner_size(s.inner)
        writer.add_ssm_state_size(s.state)
        writer.add_ssm_time_step_rank(s.rank)
    elif arch != "gpt2":
        writer.add_head_count_kv(s.n_head_kv)
        writer.add_rope_freq_base(10000.0)
    if arch in ("gemma3", "qwen3"):
        writer.add_key_length(s.head)
        writer.add_value_length(s.head)
    if arch == "gemma3":
        writer.add_sliding_window(sliding_window)
        writer.add_sliding_window_pattern(2)  # every second layer sees everything


def _vocabulary(writer: gguf.GGUFWriter, vocab: str) -> int:
    """Write a ``bpe`` or ``spm`` vocabulary; returns its size."""
    if vocab == "bpe":
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list(TOKENS)
        writer.add_token_merges(MERGES)
        writer.add_token_types(TOKEN_TYPES)
        end = token_id(END_OF_TEXT)
        writer.add_bos_token_id(end)
        writer.add_eos_token_id(end)
        writer.add_add_bos_token(False)
        return N_VOCAB
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + ["▁", "▁a", "▁the", "th", "he", "the"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *CONTROL_TEXTS]
    kinds = gguf.TokenType
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256, *[kinds.NORMAL] * len(letters)]
    types += [kinds.CONTROL] * len(CONTROL_TEXTS)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(i) for i in range(len(tokens))])
    writer.add_token_types([kind.value for kind in types])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    return len(tokens)


def _override(writer: gguf.GGUFWriter, metadata: Mapping[str, Any]) -> None:
    kinds = gguf.GGUFValueType
    for key, value in metadata.items():
        entries = writer.kv_data[0]
        if value is None:
            entries.pop(key, None)
            continue
        kind = None
        if isinstance(value, tuple):
            kind, value = value
        elif isinstance(value, bool):
            kind = kinds.BOOL
        elif isinstance(value, int):
            kind = kinds.UINT32
        if kind is None:
            kind = kinds.get_type(value)
        entries[key] = gguf.gguf_writer.GGUFValue(value=value, type=kind)


def make_model(
    path: Path | str,
    arch: str = "llama",
    *,
    seed: int = 0,
    outtype: str = "f32",
    n_embd: int = 64,
    n_layer: int = 2,
    n_head: int = 4,
    n_head_kv: int = 2,
    n_ctx: int = 2048,
    sliding_window: int = 16,
    vocab: str = "bpe",
    spec: RimSpec | str | None = "default",
    chat_template: str | bool = False,
    metadata: Mapping[str, Any] | Callable[[dict[str, Any]], Mapping[str, Any]] | None = None,
) -> Path:
    """Write a model of the given shape and return its path.

    Args:
        path: file to write.
        arch: one of ARCHITECTURES; ``mamba`` is recurrent, ``gemma3`` has a sliding window in every second layer.
        outtype: type of the matrices, a key of MATRIX_TYPES; ``n_embd`` must be a multiple of 32.
        vocab: ``bpe`` (byte-level, N_VOCAB tokens, pre-tokenizer smollm) or ``spm`` (no WORDS; give ``spec`` yourself).
        spec: memory-slot metadata; ``"default"``: default_spec(); None: a plain model.
        chat_template: True: CHAT_TEMPLATE, a text: that one, False: none.
        metadata: keys to replace or add (int as u32, float as f32, bool, str, list; or ``(GGUFValueType, value)``);
            None as a value removes the key. Applied last, so that it can break anything. A function is given the
            metadata so far (key to ``GGUFValue``) and returns such a mapping.
    """
    shape = _Shape(n_embd, n_layer, n_head, n_head if arch == "gpt2" else n_head_kv, n_ctx)
    writer = gguf.GGUFWriter(None, arch)
    writer.add_type("model")
    writer.add_name(f"tiny {arch}")
    writer.add_file_type(FILE_TYPES[outtype])
    _hyperparameters(writer, arch, shape, sliding_window)
    n_vocab = _vocabulary(writer, vocab)
    if chat_template:
        writer.add_chat_template(CHAT_TEMPLATE if chat_template is True else chat_template)
    if spec == "default":
        spec = default_spec() if vocab == "bpe" else None
    if isinstance(spec, RimSpec):
        spec.to_gguf(writer)
    _override(writer, metadata(dict(writer.kv_data[0])) if callable(metadata) else metadata or {})
    for name, size in _tensors(arch, shape, n_vocab):
        values = _values(name, size, seed)
        is_matrix = len(size) == 2 and not any(part in name for part in ("ssm_conv1d", "ssm_a", "position_embd"))
        kind = MATRIX_TYPES[outtype if is_matrix else "f32"]
        data = gguf.quants.quantize(values, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
    path = Path(path)
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
