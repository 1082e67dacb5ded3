"""Rows of one type, a line of JSON per question, written batch by batch; what an interrupt cut off is dropped."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class RowFile:
    """The file ``path`` for ``key``: a first line that names the key, then rows.

    Attributes:
        rows: what is there. Only whole batches count, since the questions of a batch run side by side and the next
            run must cut the batches alike; ``total`` rows are whole too.
    """

    def __init__(self, path: Path, key: object, batch: int, total: int) -> None:
        self._path = path
        head = json.dumps({"key": key}) + "\n"
        lines = _whole_lines(path)
        self.rows: list[Row] = []
        size = len(head.encode())
        if lines and lines[0].decode("utf-8", "replace") == head:
            rows = [(len(line), _row(line)) for line in lines[1:]]
            good = next((i for i, (_, row) in enumerate(rows) if row is None), len(rows))
            good = total if good >= total else good // batch * batch
            self.rows = [row for _, row in rows[:good] if row is not None]
            size += sum(n for n, _ in rows[:good])
            os.truncate(path, size)
        else:
            path.write_text(head, encoding="utf-8")
        self.complete = len(self.rows) == total
        self._total = total

    def append(self, rows: Sequence[Row]) -> None:
        """Add a batch; it is on the disk when this returns. Raises OSError."""
        text = "".join(json.dumps(row) + "\n" for row in rows)
        with open(self._path, "ab") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        self.rows += rows
        self.complete = len(self.rows) == self._total


def _whole_lines(path: Path) -> list[bytes]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    return [line for line in data.splitlines(keepends=True) if line.endswith(b"\n")]


def _row(line: bytes) -> Row | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and "readouts" in value else None
