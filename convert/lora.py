"""A PEFT LoRA adapter: its configuration and tensors, and their sum with a base tensor, in FP32 and row by row.

``W' = W + (alpha / r) B A`` (Hu et al., arXiv 2106.09685); with DoRA each output row is then scaled to its trained
length (Liu et al., arXiv 2402.09353). The names are those that peft's ``save_pretrained`` writes.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .failure import ConvertError
from .hf_folder import check_folder, read_json, refuse_pickles
from .lazy_tensor import FloatArray, LazyTensor
from .safetensors_file import read_tensors

_PREFIX = "base_model.model."
_UNMERGEABLE = (
    "alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication", "lora_bias", "megatron_config",
    "monteclora_config", "target_parameters", "velora_config",
)  # fmt: skip
_PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "true", "false")  # ways to start that leave the base as it was
_ROLES = (
    (re.compile(r"(.+)\.lora_(A|B)(?:\.[^.]+)?\.weight"), "lora_{}"),
    (re.compile(r"(.+)\.lora_embedding_(A|B)(?:\.[^.]+)?"), "lora_embedding_{}"),
    (re.compile(r"(.+)\.lora_magnitude_vector(?:\.[^.]+)?(?:\.weight)?"), "magnitude"),
    (re.compile(r"(.+?)(?:\.token_adapter)?\.trainable_tokens_delta"), "trained_rows"),
    (re.compile(r"(.+)\.original_module\.(?:weight|bias)"), "ignored"),
    (re.compile(r"(.+)\.modules_to_save\.(weight|bias)"), "trained_{}"),
    (re.compile(r"(.+?)(?:\.token_adapter)?\.base_layer\.(weight|bias)"), "saved_{}"),
    (re.compile(r"(.+)\.(weight|bias)"), "saved_{}"),
)


@dataclass(frozen=True)
class Change:
    """What an adapter says about one module: tensors by role (``lora_A``, ``trained_rows``, ``saved_weight``, ...)."""

    module: str
    parts: dict[str, LazyTensor] = field(default_factory=dict)

    def saved(self, kind: str = "weight") -> LazyTensor | None:
        """The module's own ``weight`` or ``bias`` where the adapter holds it whole."""
        return self.parts.get(f"trained_{kind}") or self.parts.get(f"saved_{kind}")


@dataclass(frozen=True)
class Adapter:
    """``adapter_config.json``, and the changes of ``adapter_model.safetensors`` by module (``model.layers.0...``)."""

    folder: Path
    config: dict[str, Any]
    changes: dict[str, Change]

    def scale(self, module: str, rank: int) -> float:
        """``alpha / r``, or ``alpha / sqrt(r)`` for rsLoRA. Raises ConvertError where the stated rank is another."""
        stated = _by_pattern(self.config.get("rank_pattern"), module, self.config.get("r"))
        alpha = _by_pattern(self.config.get("alpha_pattern"), module, self.config.get("lora_alpha"))
        if stated != rank or isinstance(alpha, bool) or not isinstance(alpha, int | float):
            raise ConvertError(
                f"{self.folder}: {module} has rank {rank}, adapter_config.json says r {stated!r} and lora_alpha "
                f"{alpha!r}"
            )
        return alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    def trained_indices(self, module: str) -> list[int]:
        """Token ids of the rows of ``trainable_tokens_delta``, in their order."""
        stated = self.config.get("trainable_token_indices")
        if isinstance(stated, dict):
            own = [ids for name, ids in stated.items() if module == name or module.endswith(f".{name}")]
            stated = own[0] if own else next(iter(stated.values()), None)  # a tied head is trained with the embedding's
        if not isinstance(stated, list) or not all(type(index) is int and index >= 0 for index in stated):
            raise ConvertError(
                f"{self.folder}/adapter_config.json names no trainable_token_indices for the trained rows of {module}"
            )
        return stated


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter's folder. Raises ConvertError, by name, for kinds that cannot be merged; OSError."""
    check_folder(folder)
    config = read_json(folder / "adapter_config.json")
    _check_config(folder, config)
    file = folder / "adapter_model.safetensors"
    if not file.exists():
        refuse_pickles(folder)
        raise ConvertError(f"{folder} has no adapter_model.safetensors")
    changes: dict[str, Change] = {}
    for name, tensor in read_tensors(file).items():
        module, role = _role(folder, name)
        if role != "ignored":
            changes.setdefault(module, Change(module)).parts[role] = tensor
    return Adapter(folder, config, changes)


def _check_config(folder: Path, config: dict[str, Any]) -> None:
    where = f"{folder}/adapter_config.json"
    if config.get("peft_type") != "LORA":
        raise ConvertError(f"{where} describes a {config.get('peft_type')} adapter; only LORA can be merged")
    used = [
        key
        for key, value in config.items()
        if key.startswith("use_") and value and key not in ("use_rslora", "use_dora")
    ]
    for key in (*_UNMERGEABLE, *used):
        if config.get(key):
            raise ConvertError(
                f"{where} has {key}, which cannot be merged: merge it with peft (merge_and_unload) and convert the "
                "result"
            )
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in _PLAIN_STARTS:
        raise ConvertError(
            f"{where} has init_lora_weights {start!r}, which changes the base: save it with "
            "path_initial_model_for_weight_conversion"
        )


def _role(folder: Path, name: str) -> tuple[str, str]:
    """Module and role of an adapter's tensor."""
    for pattern, role in _ROLES:
        if name.startswith(_PREFIX) and (match := pattern.fullmatch(name.removeprefix(_PREFIX))):
            return match[1], role.format(match[2] if match.lastindex and match.lastindex > 1 else "")
    raise ConvertError(f"{folder}: the tensor {name!r} is of a kind that cannot be merged")


def _by_pattern(patterns: Any, module: str, default: Any) -> Any:
    """peft's rule: the first pattern that matches the end of the module's name."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def merged_matrix(adapter: Adapter, change: Change, base: LazyTensor, transposed: bool) -> LazyTensor:
    """A matrix plus its low-rank change. ``transposed``: it lies as ``[in, out]`` (Conv1D).

    Raises ConvertError where the shapes are those of another base.
    """
    low, high = change.parts.get("lora_A"), change.parts.get("lora_B")
    if low is None or high is None:
        raise ConvertError(f"{adapter.folder} has one half only of the LoRA pair of {change.module}")
    out, into = (base.shape[1], base.shape[0]) if transposed else base.shape
    _check_pair(adapter, change, base, low.shape == (high.shape[-1], into) and high.shape == (out, low.shape[0]))
    scale = adapter.scale(change.module, low.shape[0])
    lengths = change.parts.get("magnitude")
    if lengths is not None and lengths.shape != (out,):
        raise _other_base(adapter, change, base)

    def rows(weight: FloatArray, start: int, stop: int) -> FloatArray:
        """Output rows ``start..stop`` after the change; ``weight`` holds them before it."""
        changed: FloatArray = weight + np.float32(scale) * (high.read(start, stop) @ low.whole())
        if lengths is not None:
            norm = np.sqrt((changed.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
            changed = changed * (lengths.read(start, stop)[:, None] / norm).astype(np.float32)
        return changed

    if transposed:
        return base.map_whole(lambda data: rows(np.ascontiguousarray(data.T), 0, out).T)
    return LazyTensor(base.name, base.shape, lambda start, stop: rows(base.read(start, stop), start, stop))


def merged_embedding(adapter: Adapter, change: Change, base: LazyTensor) -> LazyTensor:
    """An embedding plus its low-rank change. Raises ConvertError where the shapes are those of another base."""
    low, high = change.parts.get("lora_embedding_A"), change.parts.get("lora_embedding_B")
    if low is None or high is None or "magnitude" in change.parts:
        raise ConvertError(
            f"{adapter.folder}: the change of the embedding {change.module} cannot be merged (half a pair, or DoRA)"
        )
    _check_pair(
        adapter,
        change,
        base,
        low.shape == (high.shape[-1], base.shape[0]) and high.shape == (base.shape[1], low.shape[0]),
    )
    scale = np.float32(adapter.scale(change.module, low.shape[0]))
    return LazyTensor(
        base.name,
        base.shape,
        lambda start, stop: base.read(start, stop) + scale * (low.whole()[:, start:stop].T @ high.whole().T),
    )


def _check_pair(adapter: Adapter, change: Change, base: LazyTensor, fits: bool) -> None:
    if not fits:
        raise _other_base(adapter, change, base)


def _other_base(adapter: Adapter, change: Change, base: LazyTensor) -> ConvertError:
    shapes = ", ".join(f"{role} {part.shape}" for role, part in sorted(change.parts.items()))
    return ConvertError(
        f"{adapter.folder} belongs to another base: {change.module} has {shapes}, the base's matrix is {base.shape}"
    )
