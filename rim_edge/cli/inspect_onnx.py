"""What ``rim-edge inspect`` shows of an ONNX folder: the same facts as of a GGUF file, as far as it has them.

The folder is checked as loading does, so onnxruntime loads the graph.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

from rim_edge.backends.base import LoadOptions
from rim_edge.backends.onnx import OnnxBackend
from rim_edge.backends.onnx_folder import OnnxFolder, read_folder
from rim_edge.cli.inspect import slot_facts

#: TensorProto.DataType to its name and the bits of one value
_KINDS = {
    1: ("FLOAT", 32), 2: ("UINT8", 8), 3: ("INT8", 8), 6: ("INT32", 32), 7: ("INT64", 64), 9: ("BOOL", 8),
    10: ("FLOAT16", 16), 11: ("DOUBLE", 64), 16: ("BFLOAT16", 16), 21: ("UINT4", 4), 22: ("INT4", 4),
}  # fmt: skip
_CONTEXTS = (512, 4096, 32768)
_WIDTH_OF_RUN = 512  # tokens whose activations are estimated


def examine(path: Path) -> dict[str, Any]:
    """The facts of ``inspect.examine`` for a folder. Raises ModelFileError and SpecError as loading would."""
    folder = read_folder(path)
    backend = OnnxBackend(path, LoadOptions())
    info, spec, tokenizer = backend.info, backend.spec, backend.tokenizer
    layout = backend.layout
    slots = spec.max_block_count * spec.block_width if spec is not None else 0
    compute = 4 * (_WIDTH_OF_RUN * 12 * info.n_embd + (spec.max_block_count if spec else 1) * info.n_vocab)
    contexts = [
        {"tokens": n, "cache": (n + slots) * layout.token_bytes, "compute": compute}
        for n in sorted({*_CONTEXTS, info.n_ctx_train})
    ]
    backend.close()
    return {
        "path": str(path),
        "name": folder.name or None,
        "size_bytes": info.size_bytes,
        "gguf_version": None,
        "split": 0,
        "memory_slots": None if spec is None else slot_facts(spec, tokenizer.token_text),
        "architecture": {
            "name": info.architecture,
            "layers": info.n_layer,
            "width": info.n_embd,
            "heads": folder.n_head,
            "feed_forward": None,
            "trained_context": info.n_ctx_train,
            "sliding_window": None,
            "experts": None,
        },
        "vocabulary": {
            "tokens": info.n_vocab,
            "type": tokenizer.kind,
            "bos": tokenizer.bos_id if tokenizer.bos_id >= 0 else None,
            "eos": tokenizer.eos_id if tokenizer.eos_id >= 0 else None,
            "add_bos": tokenizer.add_bos,
            "control_tokens": len(tokenizer.control_texts),
            "chat_template": tokenizer.chat_template is not None,
        },
        "tensors": _tensors(folder),
        "runs": {"devices": ["CPU (onnxruntime)"], "coupled_pass": True, "reason": None},
        "memory": {
            "weights": info.size_bytes,
            "cache_type": "f32",
            "contexts": [{**c, "total": info.size_bytes + c["cache"] + c["compute"]} for c in contexts],
            "exact": ["weights"],
            "estimated": ["cache", "compute", "total"],
        },
    }


def _tensors(folder: OnnxFolder) -> dict[str, Any]:
    groups: dict[str, list[int]] = {}
    for name, shape in folder.head.shapes.items():
        kind, bits = _KINDS.get(folder.head.kinds[name], ("other", 8))
        found = groups.setdefault(kind, [0, 0, 0])
        found[0] += 1
        found[1] += prod(shape)
        found[2] += prod(shape) * bits // 8
    ranked = sorted(groups.items(), key=lambda item: (-item[1][2], item[0]))
    return {
        "count": sum(found[0] for found in groups.values()),
        "params": folder.n_params or sum(found[1] for found in groups.values()),
        "size_bytes": sum(found[2] for found in groups.values()),
        "types": [
            {"type": kind, "count": n, "params": values, "size_bytes": size} for kind, (n, values, size) in ranked
        ],
        "stated_type": folder.precision or None,
        "main_type": ranked[0][0] if ranked else None,
        "remarks": ["matrices of 4 bits lie two values to a UINT8"] if folder.precision == "int4" else [],
    }
