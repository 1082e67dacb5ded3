"""Model families: how each one's configuration and tensors map to GGUF. One short module per family."""

from __future__ import annotations

from ..failure import ConvertError
from .base import Family
from .config import Config
from .gemma3 import Gemma3
from .gpt2 import Gpt2
from .llama import Llama
from .qwen import Qwen2, Qwen3

FAMILIES: dict[str, Family] = {
    "gpt2": Gpt2(),
    "llama": Llama(),
    "qwen2": Qwen2(),
    "qwen3": Qwen3(),
    "gemma3": Gemma3(),
    "gemma3_text": Gemma3(),
}
"""Families by ``model_type`` of ``config.json``."""


def family_of(config: Config) -> Family:
    """The family of a configuration. Raises ConvertError for one that is not known."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ConvertError(
            f"config.json has model_type {kind!r}, which cannot be converted; known are {', '.join(FAMILIES)}"
        )
    return FAMILIES[kind]


__all__ = ["FAMILIES", "Family", "family_of"]
