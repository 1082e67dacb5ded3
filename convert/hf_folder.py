"""A Hugging Face model folder: configuration, tensors as float32, tokenizer, memory-slot metadata."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf.utility import LocalTensor, SafetensorsLocal

from rim_edge.errors import ModelFileError, SpecError
from rim_edge.spec import RimSpec

FloatArray = npt.NDArray[np.float32]


class ConvertError(ModelFileError):
    """The model cannot be converted; the message says what is wrong and where."""


class HfFolder:
    """Reads the files of ``path`` when they are asked for. Raises ConvertError with one line for a damaged folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_dir():
            raise ConvertError(f"{path} is no folder: give the Hugging Face folder that holds config.json")
        self.config = self._json("config.json")

    def _json(self, name: str) -> dict[str, Any]:
        try:
            parsed = json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConvertError(f"{self.path} has no {name}: is it a Hugging Face model folder?") from None
        except ValueError as error:
            raise ConvertError(f"{self.path / name} is no valid JSON: {error}") from None
        if not isinstance(parsed, dict):
            raise ConvertError(f"{self.path / name} must hold a JSON object")
        return parsed

    @cached_property
    def tokenizer(self) -> dict[str, Any]:
        """The parsed ``tokenizer.json``."""
        return self._json("tokenizer.json")

    def optional(self, name: str) -> dict[str, Any]:
        """The parsed JSON file ``name``, or an empty mapping where there is none."""
        return self._json(name) if (self.path / name).exists() else {}

    @property
    def name(self) -> str:
        """The model's name: from the memory-slot metadata's source, else the folder's own."""
        source = self.optional("rim_config.json").get("source")
        named = source.get("name") if isinstance(source, dict) else None
        return str(named or self.path.resolve().name)

    @property
    def license(self) -> str | None:
        source = self.optional("rim_config.json").get("source")
        named = source.get("license") if isinstance(source, dict) else None
        return str(named) if named else None

    @cached_property
    def _tensors(self) -> dict[str, LocalTensor]:
        files = sorted(f for f in self.path.glob("*.safetensors") if f.name != "rim_probe.safetensors")
        if not files:
            raise ConvertError(f"{self.path} has no *.safetensors file")
        found: dict[str, LocalTensor] = {}
        for file in files:
            found.update(_open(file))
        return found

    def tensor_names(self) -> list[str]:
        """Names of all tensors, sorted."""
        return sorted(self._tensors)

    def tensor(self, name: str) -> FloatArray:
        """One tensor as float32, exact for BF16, F16 and F32."""
        return _as_float32(name, self._tensors[name])

    def rim_spec(self) -> RimSpec | None:
        """The memory-slot metadata of ``rim_config.json`` and ``rim_probe.safetensors``; None for a plain model.

        Raises SpecError where it contradicts itself.
        """
        if not (self.path / "rim_config.json").exists():
            return None
        weight = bias = None
        probe_file = self.path / "rim_probe.safetensors"
        if probe_file.exists():
            probe = _open(probe_file)
            if not {"weight", "bias"} <= set(probe):
                raise SpecError(f"{probe_file} must hold the tensors weight [K, n_embd] and bias [K]")
            weight, bias = (_as_float32(name, probe[name]) for name in ("weight", "bias"))
        return RimSpec.from_json(self._json("rim_config.json"), weight, bias)


def _open(file: Path) -> dict[str, LocalTensor]:
    try:
        return SafetensorsLocal(file).tensors
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ConvertError(f"{file} is no valid safetensors file: {error}") from None


def _as_float32(name: str, tensor: LocalTensor) -> FloatArray:
    raw = tensor.mmap_bytes()
    sizes = {"F32": 4, "F16": 2, "BF16": 2}
    if tensor.dtype not in sizes:
        raise ConvertError(f"the tensor {name!r} has the type {tensor.dtype}; F32, F16 and BF16 can be converted")
    if raw.nbytes != sizes[tensor.dtype] * int(np.prod(tensor.shape, dtype=np.int64)):
        raise ConvertError(f"the tensor {name!r} is cut short: the safetensors file is damaged")
    if tensor.dtype == "F32":
        values: FloatArray = raw.view("<f4")
    elif tensor.dtype == "F16":
        values = raw.view("<f2").astype(np.float32)
    else:
        values = (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return values.reshape(tensor.shape)
