"""A Hugging Face folder: its JSON files, and its tensors over one or many safetensors files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from .failure import ConvertError
from .lazy_tensor import LazyTensor
from .safetensors_file import read_tensors

PROBE_FILE = "rim_probe.safetensors"
_NO_WEIGHTS = {PROBE_FILE, "adapter_model.safetensors"}
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.safetensors")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ConvertError with one line where the file is missing or holds something else."""
    try:
        parsed = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConvertError(f"{path.parent} has no {path.name}: is it a Hugging Face model folder?") from None
    except (ValueError, RecursionError) as error:
        raise ConvertError(f"{path} is no valid JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise ConvertError(f"{path} must hold a JSON object")
    return parsed


def read_json_if_there(path: Path) -> dict[str, Any]:
    """Like :func:`read_json`; an empty mapping where there is no such file."""
    return read_json(path) if path.exists() else {}


def check_folder(path: Path) -> None:
    """Raise ConvertError unless ``path`` is a folder."""
    if not path.is_dir():
        problem = "is no folder" if path.exists() else "does not exist"
        raise ConvertError(f"{path} {problem}: give the Hugging Face folder that holds config.json")


def model_tensors(folder: Path) -> dict[str, LazyTensor]:
    """All tensors of a model, from ``model.safetensors``, from the shards of its index, or from whatever lies there.

    Raises ConvertError for missing or damaged files, for pickle files, and for an index that points elsewhere.
    """
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").exists():
        return read_tensors(folder / "model.safetensors")
    if index.exists():
        return _indexed(folder, index)
    files = sorted(file for file in folder.glob("*.safetensors") if file.name not in _NO_WEIGHTS)
    if not files:
        refuse_pickles(folder)
        raise ConvertError(f"{folder} has no *.safetensors file")
    _check_shards(folder, files)
    found: dict[str, LazyTensor] = {}
    for file in files:
        tensors = read_tensors(file)
        if twice := sorted(found.keys() & tensors.keys()):
            raise ConvertError(f"{file}: the tensor {twice[0]!r} is in another file too, which of the two counts?")
        found.update(tensors)
    return found


def refuse_pickles(folder: Path) -> None:
    """Raise ConvertError where the only weights are pickle files."""
    for pattern in _PICKLES:
        for file in sorted(folder.glob(pattern)):
            raise ConvertError(
                f"{file} is a pickle file, which can run any code: save the model as safetensors (save_pretrained does)"
            )


def _indexed(folder: Path, index: Path) -> dict[str, LazyTensor]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise ConvertError(f"{index} has no weight_map from tensors to files")
    files: dict[str, dict[str, LazyTensor]] = {}
    for name in sorted(set(places.values())):
        if name != Path(name).name or "\\" in name or not name.endswith(".safetensors"):
            raise ConvertError(f"{index} points to {name!r}; a shard must be a .safetensors file in the same folder")
        if not (folder / name).is_file():
            raise ConvertError(
                f"{folder} lacks the shard {name} that model.safetensors.index.json names: download it again"
            )
        files[name] = read_tensors(folder / name)
    for tensor, name in places.items():
        if tensor not in files[name]:
            raise ConvertError(
                f"{folder / name} lacks the tensor {tensor!r} that model.safetensors.index.json places there"
            )
    return {tensor: files[places[tensor]][tensor] for tensor in sorted(places)}


def _check_shards(folder: Path, files: list[Path]) -> None:
    """Raise ConvertError where files count themselves (``-00001-of-00003``) and one is missing."""
    names = {file.name for file in files}
    for file in files:
        if shard := _SHARD.fullmatch(file.name):
            for number in range(1, int(shard[3]) + 1):
                if (name := f"{shard[1]}-{number:05d}-of-{shard[3]}.safetensors") not in names:
                    raise ConvertError(f"{folder} lacks the shard {name}: download it again")
