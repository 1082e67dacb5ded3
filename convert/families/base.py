"""What a family has to say about its models."""

from __future__ import annotations

from typing import Any, Protocol

import gguf

from ..hf_folder import ConvertError, FloatArray

Config = dict[str, Any]


class Family(Protocol):
    """Maps one ``model_type`` of transformers to one architecture of GGUF."""

    architecture: str

    def n_layers(self, config: Config) -> int: ...

    def vocab_size(self, config: Config) -> int: ...

    def width(self, config: Config) -> int: ...

    def add_hyperparameters(self, writer: gguf.GGUFWriter, config: Config) -> None:
        """Add the keys ``<architecture>.*``."""
        ...

    def is_derived(self, name: str, config: Config) -> bool:
        """Whether libllama derives this tensor from others, so that it is left out."""
        ...

    def transform(self, name: str, data: FloatArray, config: Config) -> FloatArray:
        """A tensor in the layout that libllama expects."""
        ...


def number(config: Config, key: str, default: int | float | None = None) -> int | float:
    """A number of ``config.json``. Raises ConvertError where it is missing or no number."""
    value = config.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConvertError(f"config.json needs the number {key!r}, it has {value!r}")
    return value


def integer(config: Config, key: str, default: int | None = None) -> int:
    """A positive whole number of ``config.json``. Raises ConvertError where it is missing or something else."""
    value = number(config, key, default)
    if not isinstance(value, int) or value < 1:
        raise ConvertError(f"config.json needs a positive whole number {key!r}, it has {value!r}")
    return value
