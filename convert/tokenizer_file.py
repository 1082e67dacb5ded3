"""``tokenizer.json`` and the small files around it, as a value that can be given more tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .failure import ConvertError
from .hf_folder import read_json


@dataclass(frozen=True)
class Tokenizer:
    """A parsed ``tokenizer.json``.

    Attributes:
        folder: where it was found; ``tokenizer_config.json`` and chat templates lie beside it.
        parsed: the JSON object.
        added: tokens beside the model's own vocabulary, by id: their JSON objects, ``content`` and ``special`` among
            others.
        vocabulary: the model's own tokens, text to id.
    """

    folder: Path
    parsed: dict[str, Any]
    added: dict[int, dict[str, Any]] = field(default_factory=dict)
    vocabulary: dict[str, int] = field(default_factory=dict)

    @property
    def n_tokens(self) -> int:
        """One past the largest id."""
        return max([*self.vocabulary.values(), *self.added], default=-1) + 1

    def id_of(self, text: str) -> int | None:
        """The id of the token that reads ``text``, or None."""
        found = [index for index, token in self.added.items() if token["content"] == text]
        return found[0] if found else self.vocabulary.get(text)

    def text_of(self, index: int) -> str | None:
        """The text of a token as the file has it, or None."""
        if index in self.added:
            return str(self.added[index]["content"])
        return next((text for text, own in self.vocabulary.items() if own == index), None)

    def with_control_tokens(self, texts: dict[int, str]) -> Tokenizer:
        """The tokenizer with more control tokens, id to text."""
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        more = {index: {"id": index, "content": text, **flags} for index, text in texts.items()}
        return replace(self, added={**self.added, **more})


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder. Raises ConvertError with one line where there is none or it is damaged."""
    path = folder / "tokenizer.json"
    if not path.exists():
        raise ConvertError(
            f"{folder} has no tokenizer.json: save the model's fast tokenizer there (tokenizer.save_pretrained)"
        )
    parsed = read_json(path)
    try:
        added = {token["id"]: token for token in parsed.get("added_tokens") or []}
        vocabulary = (parsed.get("model") or {}).get("vocab")
        good = all(type(i) is int and i >= 0 and isinstance(t["content"], str) for i, t in added.items())
    except (TypeError, KeyError, AttributeError):
        good, vocabulary, added = False, None, {}
    if not good:
        raise ConvertError(f"{path} is damaged: its added_tokens or its model cannot be read")
    own = vocabulary if isinstance(vocabulary, dict) else {}
    if not all(type(index) is int and index >= 0 for index in own.values()):
        raise ConvertError(f"{path} is damaged: its vocabulary has ids that are no numbers")
    return Tokenizer(folder, parsed, added, own)


def has_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer.json").exists()


def compact(value: Any) -> str:
    """A piece of JSON on one line, for messages."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else text[:117] + "..."
