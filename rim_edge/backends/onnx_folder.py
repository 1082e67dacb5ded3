"""An ONNX folder on disk: ``model.onnx`` (+ data), ``genai_config.json``, ``tokenizer.json``, read and checked.

Everything in it is untrusted; each problem is one ModelFileError or SpecError that names the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rim_edge.backends.onnx_file import OnnxHead, read_head
from rim_edge.errors import ModelFileError

MODEL_FILE, CONFIG_FILE, TOKENIZER_CONFIG_FILE = "model.onnx", "genai_config.json", "tokenizer_config.json"
ROWS_INPUT = "output_rows"  # positions whose hidden states and logits the graph gives; the converter adds it
_MAX_JSON_BYTES = 64 << 20
_NEEDED_INPUTS = ("input_ids", "attention_mask", ROWS_INPUT)
_NEEDED_OUTPUTS = ("logits", "hidden_states")


@dataclass(frozen=True)
class OnnxFolder:
    """What a folder says about its model.

    Attributes:
        path: the folder.
        head: of ``model.onnx``.
        architecture, name, precision: for the user's eyes.
        n_params: parameters as the converter counted them, 0 where it did not say.
        n_head: attention heads, 0 where the folder does not say.
        context_length: positions that the model was trained for.
        bos_id: -1 where there is none.
        end_ids: tokens that end an answer, the usual one first.
        tokenizer_config: ``tokenizer_config.json``; empty where there is none.
        size_bytes: of the graph and its data.
    """

    path: Path
    head: OnnxHead
    architecture: str
    name: str
    precision: str
    n_params: int
    n_head: int
    context_length: int
    bos_id: int
    end_ids: tuple[int, ...]
    tokenizer_config: Mapping[str, Any]
    size_bytes: int

    @property
    def model_file(self) -> Path:
        return self.path / MODEL_FILE

    @property
    def n_positions(self) -> int:
        """Positions that can be run at all: rows of the tables of rotary positions, where the graph has such tables."""
        tables = [s[0] for name, s in self.head.shapes.items() if name.startswith("cos_cache") and len(s) == 2]
        return min(tables, default=self.context_length)


def is_onnx(path: Path) -> bool:
    """Whether ``path`` is an ONNX folder, or the ``model.onnx`` in one."""
    return path.name == MODEL_FILE if path.is_file() else (path / MODEL_FILE).is_file()


def read_folder(path: Path) -> OnnxFolder:
    """Read the folder that ``path`` is, or that holds the file ``path``.

    Raises:
        ModelFileError: a file is missing, damaged, or not made for RiM Edge.
    """
    folder = path.parent if path.is_file() else path
    head = read_head(folder / MODEL_FILE)
    for kind, names, needed in (("input", head.inputs, _NEEDED_INPUTS), ("output", head.outputs, _NEEDED_OUTPUTS)):
        for name in needed:
            if name not in names:
                raise ModelFileError(
                    f"{folder / MODEL_FILE}: the graph has no {kind} {name!r}: make it with rim-edge convert onnx"
                )
    config = _read_json(folder / CONFIG_FILE)
    model = config.get("model")
    if not isinstance(model, dict):
        raise ModelFileError(f"{folder / CONFIG_FILE}: has no object 'model': convert the model again")
    tokenizer_file = folder / TOKENIZER_CONFIG_FILE
    data_bytes = sum((folder / name).stat().st_size for name in head.external)
    ends = model.get("eos_token_id")
    return OnnxFolder(
        path=folder,
        head=head,
        architecture=head.metadata.get("general.architecture") or str(model.get("type", "")),
        name=head.metadata.get("general.name", ""),
        precision=head.metadata.get("general.precision", ""),
        n_params=_count(head.metadata.get("general.parameter_count", "")),
        n_head=_heads(model),
        context_length=_number(folder, model, "context_length", least=1),
        bos_id=-1 if model.get("bos_token_id") is None else _number(folder, model, "bos_token_id", least=-1),
        end_ids=tuple(_token(folder, end) for end in (ends if isinstance(ends, list) else [ends]) if end is not None),
        tokenizer_config=_read_json(tokenizer_file) if tokenizer_file.exists() else {},
        size_bytes=(folder / MODEL_FILE).stat().st_size + data_bytes,
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ModelFileError(f"{path}: is too large to be true: convert the model again")
        parsed = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelFileError(f"{path}: is missing: copy or convert the model again") from None
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise ModelFileError(f"{path}: is no valid JSON: copy or convert the model again") from None
    if not isinstance(parsed, dict):
        raise ModelFileError(f"{path}: must hold a JSON object: convert the model again")
    return parsed


def _number(folder: Path, model: Mapping[str, Any], key: str, least: int) -> int:
    value = model.get(key)
    if type(value) is not int or not least <= value < 2**31:
        raise ModelFileError(f"{folder / CONFIG_FILE}: model.{key} is {value!r}, expected a number: convert again")
    return value


def _token(folder: Path, value: Any) -> int:
    return _number(folder, {"eos_token_id": value}, "eos_token_id", least=0)


def _heads(model: Mapping[str, Any]) -> int:
    decoder = model.get("decoder")
    value = decoder.get("num_attention_heads") if isinstance(decoder, dict) else None
    return value if type(value) is int and value > 0 else 0


def _count(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
