"""Model families: how each one's configuration and tensors map to GGUF. One short module per family."""

from __future__ import annotations

from typing import Any

from ..hf_folder import ConvertError
from .base import Family
from .llama import Llama

FAMILIES: dict[str, Family] = {"llama": Llama()}
"""Families by ``model_type`` of ``config.json``."""


def family_of(config: dict[str, Any]) -> Family:
    """The family of a configuration. Raises ConvertError for one that is not known."""
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise ConvertError(f"config.json has model_type {kind!r}; known are {', '.join(sorted(FAMILIES))}")
    return FAMILIES[kind]


__all__ = ["FAMILIES", "Family", "family_of"]
