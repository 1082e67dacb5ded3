"""The ONNX twin of a tiny llama of ``shapes.py``: the same weights, vocabulary and metadata, in the builder's form.

Written without the ``onnx`` package, message by message, so that a test can also write what no library would.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from rim_edge.convert.families.llama import to_halves

from rim_edge.backends.onnx_folder import ROWS_INPUT
from rim_edge.spec import RimSpec

FLOAT, INT32, INT64 = 1, 6, 7  # TensorProto.DataType
Array = npt.NDArray[Any]


# ---- protobuf --------------------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    out = bytearray()
    value &= 2**64 - 1
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, *parts: bytes | str) -> bytes:
    body = b"".join(part.encode() if isinstance(part, str) else part for part in parts)
    return varint(field << 3 | 2) + varint(len(body)) + body


def pair(field: int, key: str, value: str) -> bytes:
    """A StringStringEntryProto."""
    return message(field, message(1, key), message(2, value))


def attribute(name: str, value: int | float | Sequence[int]) -> bytes:
    if isinstance(value, float):
        body = varint(2 << 3 | 5) + np.float32(value).tobytes() + number(20, 1)
    elif isinstance(value, int):
        body = number(3, value) + number(20, 2)
    else:
        body = b"".join(number(8, item) for item in value) + number(20, 7)
    return message(5, message(1, name), body)


def value_info(field: int, name: str, kind: int, shape: Sequence[int | str]) -> bytes:
    dims = [message(1, number(1, size) if isinstance(size, int) else message(2, size)) for size in shape]
    return message(field, message(1, name), message(2, message(1, number(1, kind), message(2, *dims))))


class GraphWriter:
    """Nodes and weights of a graph; the weights go to ``model.onnx.data``."""

    def __init__(self) -> None:
        self.nodes: list[bytes] = []
        self.values: list[bytes] = []  # inputs and outputs
        self.initializers: list[bytes] = []
        self.data = bytearray()

    def node(
        self, kind: str, inputs: Sequence[str], outputs: Sequence[str], domain: str = "", **attributes: Any
    ) -> str:
        parts = [message(1, name) for name in inputs] + [message(2, name) for name in outputs]
        parts += [message(4, kind), *(attribute(name, value) for name, value in attributes.items())]
        self.nodes.append(message(1, *parts, message(7, domain)))
        return outputs[0]

    def weight(self, name: str, values: Array, location: str = "model.onnx.data") -> str:
        kind = {"float32": FLOAT, "int64": INT64}[values.dtype.name]
        raw = np.ascontiguousarray(values).tobytes()
        parts = [*(number(1, size) for size in values.shape), number(2, kind), message(8, name)]
        if values.size > 8:
            entries = {"location": location, "offset": str(len(self.data)), "length": str(len(raw))}
            parts += [*(pair(13, key, value) for key, value in entries.items()), number(14, 1)]
            self.data += raw
        else:
            parts.append(message(9, raw))
        self.initializers.append(message(5, *parts))
        return name

    def model(self, metadata: Mapping[str, str]) -> bytes:
        graph = message(7, *self.nodes, message(2, "tiny"), *self.initializers, *self.values)
        opsets = message(8, number(2, 22)) + message(8, message(1, "com.microsoft"), number(2, 1))
        return number(1, 10) + graph + opsets + b"".join(pair(14, key, value) for key, value in metadata.items())


# ---- a llama ---------------------------------------------------------------------------------------------------------


def make_onnx(source: Path, folder: Path, *, n_positions: int = 2048, props: Mapping[str, str] | None = None) -> Path:
    """Write the ONNX twin of the tiny F32 llama ``source`` (GGUF) into ``folder`` and return it.

    Args:
        n_positions: rows of the rotary tables.
        props: metadata to replace or add; an empty text removes a key.
    """
    reader = gguf.GGUFReader(source)
    metadata = {name: _plain(field) for name, field in reader.fields.items()}
    weights = {tensor.name: np.array(tensor.data, np.float32) for tensor in reader.tensors}
    folder.mkdir(parents=True, exist_ok=True)
    graph = llama_graph(metadata, weights, n_positions)
    spec = RimSpec.from_gguf(metadata, metadata["llama.embedding_length"])
    found = {"general.architecture": "llama", "general.precision": "fp32", **(spec.to_props() if spec else {})}
    found = {key: value for key, value in {**found, **(props or {})}.items() if value}
    (folder / "model.onnx").write_bytes(graph.model(found))
    (folder / "model.onnx.data").write_bytes(bytes(graph.data))
    end = metadata["tokenizer.ggml.eos_token_id"]
    model = {"type": "llama", "context_length": n_positions, "bos_token_id": end, "eos_token_id": [end]}
    (folder / "genai_config.json").write_text(json.dumps({"model": model}))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(metadata)))
    config = {"add_bos_token": False, "chat_template": metadata.get("tokenizer.chat_template")}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def llama_graph(metadata: Mapping[str, Any], weights: Mapping[str, Array], n_positions: int) -> GraphWriter:
    """The graph that the builder makes of a llama, with the converter's ``output_rows``."""
    g = GraphWriter()
    n_embd, n_layer = metadata["llama.embedding_length"], metadata["llama.block_count"]
    n_head, n_kv = metadata["llama.attention.head_count"], metadata["llama.attention.head_count_kv"]
    head, epsilon = n_embd // n_head, 1e-5
    n_vocab = weights["token_embd.weight"].shape[0]

    def matmul(name: str, source: str, values: Array) -> str:
        return g.node("MatMul", [source, g.weight(name, values.T)], [f"{name}.out"])

    def norm(name: str, source: str, output: str) -> str:
        scale = g.weight(name, weights[name])
        return g.node("SimplifiedLayerNormalization", [source, scale], [output], axis=-1, epsilon=epsilon, stash_type=1)

    g.values += [value_info(11, "input_ids", INT64, ["batch", "width"])]
    g.values += [
        value_info(11, "attention_mask", INT64, ["batch", "total"]),
        value_info(11, ROWS_INPUT, INT64, ["rows"]),
    ]
    one = g.weight("one", np.array([1], np.int64))
    sums = g.node("ReduceSum", ["attention_mask", one], ["lengths"], keepdims=0)
    last = g.node("Cast", [g.node("Sub", [sums, one], ["lasts"])], ["lasts32"], to=INT32)
    sizes = g.node("Shape", ["attention_mask"], ["sizes"])
    total = g.node(
        "Cast", [g.node("Gather", [sizes, g.weight("axis", np.array(1, np.int64))], ["total64"])], ["total32"], to=INT32
    )
    angles = np.outer(np.arange(n_positions), 10000.0 ** -(np.arange(0, head, 2) / head))
    tables = [
        g.weight("cos_cache", np.cos(angles).astype(np.float32)),
        g.weight("sin_cache", np.sin(angles).astype(np.float32)),
    ]
    x = g.node("Gather", [g.weight("embedding", weights["token_embd.weight"]), "input_ids"], ["embedded"])
    for i in range(n_layer):
        at = f"blk.{i}."
        normed = norm(f"{at}attn_norm.weight", x, f"{at}normed")
        q, k, v = (
            matmul(f"{at}attn_{part}.weight", normed, values)
            for part, values in (
                ("q", to_halves(weights[f"{at}attn_q.weight"], n_head)),
                ("k", to_halves(weights[f"{at}attn_k.weight"], n_kv)),
                ("v", weights[f"{at}attn_v.weight"]),
            )
        )
        past = [f"past_key_values.{i}.key", f"past_key_values.{i}.value"]
        present = [f"present.{i}.key", f"present.{i}.value"]
        for before, after in zip(past, present, strict=True):
            g.values += [value_info(11, before, FLOAT, ["batch", n_kv, "past", head])]
            g.values += [value_info(12, after, FLOAT, ["batch", n_kv, "total", head])]
        attended = g.node(
            "GroupQueryAttention",
            [q, k, v, *past, last, total, *tables],
            [f"{at}attended", *present],
            "com.microsoft",
            num_heads=n_head,
            kv_num_heads=n_kv,
            do_rotary=1,
        )
        x = g.node(
            "Add", [x, matmul(f"{at}attn_output.weight", attended, weights[f"{at}attn_output.weight"])], [f"{at}mid"]
        )
        normed = norm(f"{at}ffn_norm.weight", x, f"{at}ffn_normed")
        gate, up = (
            matmul(f"{at}ffn_{part}.weight", normed, weights[f"{at}ffn_{part}.weight"]) for part in ("gate", "up")
        )
        soft = g.node("Mul", [gate, g.node("Sigmoid", [gate], [f"{at}sigmoid"])], [f"{at}silu"])
        wide = g.node("Mul", [soft, up], [f"{at}wide"])
        x = g.node("Add", [x, matmul(f"{at}ffn_down.weight", wide, weights[f"{at}ffn_down.weight"])], [f"{at}out"])
    every = norm("output_norm.weight", x, "every")
    g.node("Gather", [every, ROWS_INPUT], ["hidden_states"], axis=1)
    g.node("MatMul", ["hidden_states", g.weight("output.weight", weights["output.weight"].T)], ["logits"])
    g.values += [value_info(12, "logits", FLOAT, ["batch", "rows", n_vocab])]
    g.values += [value_info(12, "hidden_states", FLOAT, ["batch", "rows", n_embd])]
    return g


def tokenizer_json(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """``tokenizer.json`` of a byte-level vocabulary with the pre-tokenizer smollm."""
    texts, kinds = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    controls = [index for index, kind in enumerate(kinds) if kind == gguf.TokenType.CONTROL]
    return {
        "version": "1.0",
        "added_tokens": [{"id": index, "content": texts[index], **flags} for index in controls],
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": {text: index for index, text in enumerate(texts) if index not in controls},
            "merges": [merge.split(" ") for merge in metadata["tokenizer.ggml.merges"]],
        },
    }


def _plain(field: gguf.ReaderField) -> Any:
    contents = field.contents()
    if field.types[-1] == gguf.GGUFValueType.FLOAT32 and isinstance(contents, list):
        return np.array(contents, np.float32)
    return contents
