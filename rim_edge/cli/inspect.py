"""``rim-edge inspect``: what a model file holds and what it will need, before its weights are loaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rim_edge import memory
from rim_edge.backends.onnx_folder import is_onnx
from rim_edge.cli import console, file_types
from rim_edge.cli.render import json_line
from rim_edge.cli.work import Work
from rim_edge.errors import ModelFileError
from rim_edge.spec import RimSpec

if TYPE_CHECKING:
    from rim_edge import _native


@click.command(
    epilog="""\b
Examples:
  rim-edge inspect model.gguf
  rim-edge inspect model.gguf --json"""
)
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "-ctk",
    "--cache-type",
    type=click.Choice(sorted(memory.CACHE_BYTES), case_sensitive=False),
    default="f16",
    show_default=True,
    help="Number format of the cache to estimate.",
)
def inspect(model: str | None, as_json: bool, cache_type: str) -> int:
    """Show what MODEL, a GGUF file or an ONNX folder, holds and needs; without it the bundled rim-tiny.

    The file's head is checked, and its vocabulary is opened; the weights of a GGUF file are not loaded. Bytes of
    weights are exact, bytes of cache follow from the file's numbers, bytes of compute are a rough estimate.
    """
    path = _path(model)
    work: Work[None, dict[str, Any]] = Work(lambda _: examine(path, cache_type), lambda: None)
    facts = work.run()
    if as_json:
        console.out(json_line(facts))
    else:
        for line in describe(facts):
            console.out(line, bold=bool(line) and not line.startswith(" "))
    return 0


def _path(model: str | None) -> str:
    from rim_edge.model import BUNDLED

    path = str(BUNDLED) if model is None else model
    if not os.path.exists(path):
        raise ModelFileError(f"{path}: no such file; give the path of a .gguf model")
    if os.path.isdir(path) and not is_onnx(Path(path)):
        raise ModelFileError(f"{path}: is a directory without model.onnx; inspect reads .gguf files and ONNX folders")
    return path


def examine(path: str, cache_type: str = "f16") -> dict[str, Any]:
    """Everything that ``inspect`` shows, as plain JSON values: sizes in bytes, contexts in tokens.

    Raises ModelFileError and SpecError as loading would.
    """
    if is_onnx(Path(path)):
        from rim_edge.cli import inspect_onnx

        return inspect_onnx.examine(Path(path))
    from rim_edge import _native
    from rim_edge.backends.gguf import read_head

    file = _native.GgufFile(path)
    metadata, tensors = file.metadata, file.tensors
    shape = memory.model_shape(metadata, tensors)
    spec, _ = read_head(Path(path))
    model = _native.Model(path, vocab_only=True)

    def text(token: int) -> str:
        return bytes(model.token_text(token)).decode("utf-8", "replace")

    try:
        return {
            "path": path,
            "name": metadata.get("general.name"),
            "size_bytes": file.size_bytes,
            "gguf_version": file.version,
            "split": _integer(metadata, "split.count"),
            "memory_slots": None if spec is None else slot_facts(spec, text),
            "architecture": _architecture(metadata, shape),
            "vocabulary": _vocabulary(model, shape),
            "tensors": _tensors(path, metadata, tensors),
            "runs": {
                "devices": list(model.devices),
                "kernels": _kernels(_native.kernels(), tensors),
                "coupled_pass": model.coupled,
                "reason": model.coupled_reason or None,
            },
            "memory": _memory(metadata, tensors, spec, cache_type),
        }
    finally:
        model.close()


def slot_facts(spec: RimSpec, text: Callable[[int], str]) -> dict[str, Any]:
    """The memory-slot metadata; ``text`` gives the vocabulary's entry for a token."""
    return {
        "version": spec.version,
        "block_count": spec.block_count,
        "block_size": spec.block_size,
        "max_block_count": spec.max_block_count,
        "tokens": {
            "begin": {"id": spec.begin_id, "text": text(spec.begin_id)},
            "memory": {"id": spec.memory_id, "text": text(spec.memory_id)},
            "end": {"id": spec.end_id, "text": text(spec.end_id)},
        },
        "prompt_template": spec.prompt_template,
        "answer_prefix": spec.answer_prefix,
        "answer_pattern": spec.answer_pattern,
        "trained_direct": spec.trained_direct,
        "closed_vocabulary": spec.closed_vocabulary,
        "probe": None if spec.probe_weight is None else list(spec.probe_weight.shape),
        "source": dict(spec.source),
    }


def _architecture(metadata: Mapping[str, Any], shape: memory.Shape) -> dict[str, Any]:
    return {
        "name": shape.architecture,
        "layers": shape.n_layer,
        "width": shape.n_embd,
        "heads": shape.n_head,
        "feed_forward": shape.n_ff,
        "trained_context": shape.n_ctx_train,
        "sliding_window": shape.sliding_window or None,
        "experts": _integer(metadata, f"{shape.architecture}.expert_count") or None,
    }


def _vocabulary(model: _native.Model, shape: memory.Shape) -> dict[str, Any]:
    return {
        "tokens": shape.n_vocab,
        "type": model.vocab_type,
        "bos": model.bos_id if model.bos_id >= 0 else None,
        "eos": model.eos_id if model.eos_id >= 0 else None,
        "add_bos": model.add_bos,
        "control_tokens": len(model.control_ids),
        "chat_template": model.chat_template is not None,
    }


def _tensors(path: str, metadata: Mapping[str, Any], tensors: list[_native.GgufTensor]) -> dict[str, Any]:
    groups = file_types.by_type(tensors)
    file_type = metadata.get("general.file_type")
    return {
        "count": sum(group.n_tensors for group in groups),
        "params": sum(group.n_params for group in groups),
        "size_bytes": sum(group.size_bytes for group in groups),
        "types": [
            {"type": g.type, "count": g.n_tensors, "params": g.n_params, "size_bytes": g.size_bytes} for g in groups
        ],
        "stated_type": file_types.FILE_TYPES.get(file_type) if isinstance(file_type, int) else None,
        "main_type": file_types.main_type(tensors) or None,
        "remarks": file_types.remarks(path, file_type, tensors),
    }


def _kernels(kernels: _native.Kernels, tensors: list[_native.GgufTensor]) -> dict[str, Any]:
    """What multiplies this file's weights on the CPU: which of its types our kernels take, or why they take none."""
    known = {name.lower() for name in kernels.types}
    mine = [group.type for group in file_types.by_type(tensors) if group.type.lower() in known]
    return {
        "instructions": kernels.instructions or None,
        "types": mine,
        "attention": kernels.attention,
        "norms": kernels.norms,
        "swiglu": kernels.swiglu,
        "reason": kernels.reason or None,
    }


def _memory(
    metadata: Mapping[str, Any], tensors: list[_native.GgufTensor], spec: RimSpec | None, cache_type: str
) -> dict[str, Any]:
    slots = spec.max_block_count * spec.block_width if spec is not None else 0
    readouts = spec.max_block_count if spec is not None else 1
    found = memory.estimate(metadata, tensors, n_slots=slots, n_readouts=readouts, cache_type=cache_type)
    return {
        "weights": found.weights,
        "cache_type": found.cache_type,
        "contexts": [
            {"tokens": n, "cache": found.cache[n], "compute": found.compute[n], "total": found.total(n)}
            for n in found.cache
        ],
        "exact": ["weights"],
        "estimated": ["cache", "compute", "total"],
    }


def _integer(metadata: Mapping[str, Any], key: str) -> int:
    value = metadata.get(key, 0)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


# ---- as text --------------------------------------------------------------------------------------------------------


def describe(facts: dict[str, Any]) -> list[str]:
    """The facts of ``examine`` as lines for a person; a line without indent is a heading."""
    sections = (
        _head(facts),
        _slot_lines(facts),
        _model_lines(facts),
        _tensor_lines(facts),
        _run_lines(facts),
        _memory_lines(facts),
    )
    lines: list[str] = []
    for section in sections:
        lines += ["", *section] if lines else section
    return lines


def _pairs(rows: list[tuple[str, str]]) -> list[str]:
    return console.table(("", ""), rows, indent="  ")[1:]


def _head(facts: dict[str, Any]) -> list[str]:
    name = facts["name"] if isinstance(facts["name"], str) and facts["name"] else "no name"
    params = facts["tensors"]["params"]
    parts = (name, facts["architecture"]["name"], f"{_millions(params)} parameters", console.size(facts["size_bytes"]))
    lines = [console.one_line(facts["path"]), "  " + console.one_line(" · ".join(parts))]
    if facts["split"] > 1:
        lines.append(f"  one of {facts['split']} files: tensors and weights below are those of this file alone")
    return lines


def _slot_lines(facts: dict[str, Any]) -> list[str]:
    spec = facts["memory_slots"]
    if spec is None:
        return ["memory slots", "  none: no rim.* metadata, the model answers directly"]
    width = spec["block_size"] + 2
    rows = [
        ("blocks", f"{spec['block_count']}, at most {spec['max_block_count']}"),
        (
            "block size",
            f"{spec['block_size']} memory tokens: {width} positions a block, {width * spec['block_count']} in all",
        ),
        ("tokens", "  ".join(f"{token['text']} ({token['id']})" for token in spec["tokens"].values())),
    ]
    if spec["answer_prefix"] is not None:
        rows.append(("answer prefix", repr(spec["answer_prefix"])))
    if spec["answer_pattern"] is not None:
        rows.append(("answer pattern", spec["answer_pattern"]))
    if spec["prompt_template"] is not None:
        rows.append(("prompt template", repr(spec["prompt_template"])))
    probe = spec["probe"]
    rows.append(("probe", "none" if probe is None else f"{probe[0]} blocks x {probe[1]}"))
    rows.append(("direct answers", "trained" if spec["trained_direct"] else "not trained"))
    if spec["closed_vocabulary"]:
        rows.append(("vocabulary", "closed: unknown words are named"))
    rows += [(f"source: {key}", value) for key, value in spec["source"].items()]
    return ["memory slots", *_pairs(rows)]


def _model_lines(facts: dict[str, Any]) -> list[str]:
    arch, vocab = facts["architecture"], facts["vocabulary"]
    rows = [
        ("architecture", f"{arch['name']}: {arch['layers']} layers x {arch['width']}, {arch['heads']} heads"),
        ("trained context", f"{arch['trained_context']} tokens" if arch["trained_context"] else "not said"),
    ]
    if arch["sliding_window"]:
        rows.append(("sliding window", f"{arch['sliding_window']} tokens"))
    if arch["experts"]:
        rows.append(("experts", str(arch["experts"])))
    rows.append(("vocabulary", f"{vocab['tokens']} tokens ({vocab['type']}), {vocab['control_tokens']} control tokens"))
    rows.append(("chat template", "yes" if vocab["chat_template"] else "no"))
    return ["model", *_pairs(rows)]


def _tensor_lines(facts: dict[str, Any]) -> list[str]:
    tensors = facts["tensors"]
    total = max(1, tensors["size_bytes"])
    rows = [
        (
            g["type"],
            str(g["count"]),
            _millions(g["params"]),
            console.size(g["size_bytes"]),
            f"{100 * g['size_bytes'] / total:.1f} %",
        )
        for g in tensors["types"]
    ]
    lines = console.table(("type", "tensors", "parameters", "bytes", "share"), rows, right="lrrrr", indent="  ")
    return ["tensors", *lines, *(f"  note: {remark}" for remark in tensors["remarks"])]


def _run_lines(facts: dict[str, Any]) -> list[str]:
    runs = facts["runs"]
    if facts["memory_slots"] is None:
        coupled = "not needed, there are no memory blocks"
    elif runs["coupled_pass"]:
        coupled = "yes: question, all blocks and their readouts in one forward pass"
    else:
        coupled = f"no: {runs['reason']}"
    rows = [("devices", ", ".join(runs["devices"]) or "CPU")]
    if "kernels" in runs:
        rows.append(("kernels", _kernel_words(runs["kernels"])))
    rows.append(("coupled pass", coupled))
    return ["runs on", *_pairs(rows)]


def _kernel_words(kernels: dict[str, Any]) -> str:
    parts = {"attention": "attention", "norms": "norms", "swiglu": "SwiGLU"}
    what = [*kernels["types"], *(name for part, name in parts.items() if kernels[part])]
    if not what:
        return f"libllama's ({kernels['reason'] or 'none of ours for these types'})"
    return f"{kernels['instructions']} for {', '.join(what)}"


def _memory_lines(facts: dict[str, Any]) -> list[str]:
    need = facts["memory"]
    rows = [
        (f"{c['tokens']}", console.size(c["cache"]), f"~{console.size(c['compute'])}", f"~{console.size(c['total'])}")
        for c in need["contexts"]
    ]
    cache = f"cache ({need['cache_type']})"
    return [
        "memory before loading",
        f"  weights {console.size(need['weights'])}",
        *console.table(("context", cache, "compute", "total"), rows, right="rrrr", indent="  "),
        "  weights are exact, cache follows from the file's numbers, compute (~) is a rough estimate",
    ]


def _millions(n: int) -> str:
    for unit, name in ((1_000_000_000, " B"), (1_000_000, " M"), (1000, " k")):
        if n >= unit:
            return f"{n / unit:.1f}{name}"
    return str(n)
