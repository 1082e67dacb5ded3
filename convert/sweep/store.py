"""The folder of a sweep: finished parts as JSON files that appear whole or not at all, each with the key it is for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from rim_edge.errors import OptionError

from ..failure import ConvertError
from ..whole_file import whole_file
from .plan import differences

_PLAN = "plan.json"


class Store:
    """Results in ``folder``. A part that was written for another key, or is damaged, counts as not there."""

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        """Open or make the folder.

        Raises:
            OptionError: the folder holds another sweep, or something else.
            OSError: it cannot be made.
        """
        self.folder = folder
        if folder.exists() and not folder.is_dir():
            raise OptionError(f"{folder} is a file: give the name of a folder for the sweep")
        folder.mkdir(parents=True, exist_ok=True)
        before = _read(folder / _PLAN)
        if before is None and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise OptionError(f"{folder} is no folder of a sweep and not empty: choose another --out")
        if before is not None and before != identity:
            reasons = "; ".join(differences(before, identity)) or "its plan"
            raise OptionError(
                f"{folder} holds another sweep, what differs: {reasons}. Choose another --out, or remove that folder"
            )
        if before is None:
            self._write(_PLAN, identity)

    def path(self, name: str) -> Path:
        """Where a part lies; its folder is made."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def get(self, name: str, key: object) -> Any | None:
        """The part ``name``, None where it is not there for ``key`` (any JSON value)."""
        held = _read(self.folder / name)
        return held["value"] if held is not None and "value" in held and held.get("key") == key else None

    def put(self, name: str, key: object, value: Any) -> None:
        """Write a part."""
        self._write(name, {"key": key, "value": value})

    def _write(self, name: str, value: Any) -> None:
        write_text(self.path(name), json.dumps(value, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write or replace a file, whole or not at all. Raises OSError."""
    with whole_file(path, force=True) as place:
        place.write_text(text, encoding="utf-8")


def check_room(folder: Path, needed: int, what: str) -> None:
    """Raise ConvertError where ``folder`` has less than ``needed`` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ConvertError(
            f"{folder}: {what} will take {needed / 1e6:,.1f} MB and {free / 1e6:,.1f} MB are free: free some space, or "
            "take fewer --types"
        )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
