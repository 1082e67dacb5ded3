"""Saved conversations: one JSON file, written atomically and checked when read.

``{"format": "rim-edge-chat", "version": 1, "model": "<architecture and size>", "system": "..." | null,
"messages": [{"role": "user" | "assistant", "content": "..."}, ...]}``, users and assistant in turns.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rim_edge.errors import OptionError
from rim_edge.results import Message

FORMAT, VERSION = "rim-edge-chat", 1


def write(path: str | os.PathLike[str], messages: Sequence[Message], system: str | None, model: str) -> None:
    """Write a conversation, so that at any moment ``path`` holds the old file or the new one, whole.

    Raises:
        OptionError: the file cannot be written.
    """
    target = Path(path)
    document = {
        "format": FORMAT,
        "version": VERSION,
        "model": model,
        "system": system,
        "messages": [{"role": message.role, "content": message.content} for message in messages],
    }
    data = (json.dumps(document, ensure_ascii=True, indent=1) + "\n").encode("ascii")  # ASCII keeps lone surrogates too
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=target.parent, prefix=f".{target.name}.", suffix=".tmp", delete=False
        ) as file:
            temporary = file.name
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise OptionError(f"{target}: the conversation cannot be saved: {error.strerror or error}") from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def read(path: str | os.PathLike[str]) -> tuple[list[Message], str | None]:
    """Read a conversation: its messages and its system prompt.

    Raises:
        OptionError: not there, not readable, or not a conversation of this version.
    """
    source = Path(path)
    try:
        document = json.loads(source.read_bytes())
    except OSError as error:
        raise OptionError(f"{source}: the conversation cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise OptionError(f"{source}: is not a saved conversation (not JSON)") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise OptionError(f"{source}: is not a saved conversation (no format {FORMAT!r})")
    version = document.get("version")
    if version != VERSION:
        raise OptionError(f"{source}: has version {version!r}, this RiM Edge reads version {VERSION}")
    system = document.get("system")
    if system is not None and not isinstance(system, str):
        raise OptionError(f"{source}: system is not text")
    items = document.get("messages")
    if not isinstance(items, list) or len(items) % 2:
        raise OptionError(f"{source}: messages is not a list of turns of user and assistant")
    return [_message(source, index, item) for index, item in enumerate(items)], system


def _message(source: Path, index: int, item: Any) -> Message:
    role = ("user", "assistant")[index % 2]
    if not isinstance(item, dict) or item.get("role") != role or not isinstance(item.get("content"), str):
        raise OptionError(f"{source}: message {index} is not text of the {role}")
    return Message("user" if role == "user" else "assistant", item["content"])
