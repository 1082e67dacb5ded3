"""The file of answers: JSON lines, a head that says what was evaluated, then one line per answer, written as it comes.

A process that ends in the middle of a line, in whatever way, leaves at most half a line, which the next one removes.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rim_edge.errors import RimError

try:
    import fcntl
except ImportError:  # not POSIX: two commands on one file are the user's business
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from typing_extensions import Self

FORMAT = "rim-edge-evaluation"
VERSION = 1
_START = b'{"kind": "head"'


class RecordError(RimError):
    """The file of answers cannot be read, written, or belongs to another evaluation."""


class Record:
    """An open file of answers; a context manager, closed at its end.

    Attributes:
        path: where it is.
        head: its first line.
        lines: all lines after the head, those that were there and those that were added.
        mended: whether half a line at the end was removed.
    """

    def __init__(self, path: Path, head: Mapping[str, Any], *, force: bool = False) -> None:
        """Open ``path``, or make it.

        Args:
            path: the file.
            head: what is evaluated. ``head["must_match"]`` has to be that of a file that is already there; the rest
                is for readers.
            force: begin anew whatever is there.

        Raises RecordError.
        """
        self.path = path
        self.mended = False
        self.lines: list[dict[str, Any]] = []
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise RecordError(f"cannot write {path}: {error.strerror}; choose another --output") from None
        try:
            if not stat.S_ISREG(os.fstat(self._file).st_mode):
                raise RecordError(f"{path} is no plain file: choose another --output")
            self._lock()
            self._begin({"kind": "head", "format": FORMAT, "version": VERSION, **_plain(dict(head))}, force)
        except BaseException:
            os.close(self._file)
            raise

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RecordError(f"another command is writing {self.path}: wait for it, or choose another --output") from (
                None
            )
        except OSError:
            return  # a file system without locks

    def _begin(self, head: dict[str, Any], force: bool) -> None:
        data = b"" if force else self._read()
        end = data.rfind(b"\n") + 1
        self.mended = end < len(data)
        entries = [self._entry(raw, number) for number, raw in enumerate(data[:end].splitlines(), 1)]
        if not entries:
            if not data.startswith(_START[: len(data)]):
                raise RecordError(f"{self.path} is no file of answers: choose another --output, or give --force")
            self._cut(0)
            self.head = head
            self._write(head)
            return
        self.head, self.lines = entries[0], entries[1:]
        self._check(head)
        if self.mended:
            self._cut(end)
        os.lseek(self._file, 0, os.SEEK_END)

    def _entry(self, raw: bytes, number: int) -> dict[str, Any]:
        try:
            entry = json.loads(raw)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or (entry.get("format") != FORMAT if number == 1 else "kind" not in entry):
            what = "is no file of answers" if number == 1 else f"is damaged in line {number}"
            raise RecordError(f"{self.path} {what}: choose another --output, or give --force to begin anew")
        return entry

    def _check(self, head: dict[str, Any]) -> None:
        if self.head.get("version") != VERSION:
            raise RecordError(
                f"{self.path} has version {self.head.get('version')} of this format, this program writes {VERSION}: "
                "choose another --output"
            )
        there, here = _flat(self.head.get("must_match", {})), _flat(head["must_match"])
        differing = [name for name in {**there, **here} if there.get(name) != here.get(name)]
        if differing:
            words = "; ".join(
                f"{name} is {_word(there.get(name))} there, {_word(here.get(name))} here" for name in differing
            )
            raise RecordError(
                f"{self.path} holds another evaluation ({words}): choose another --output, or --force to begin anew"
            )

    # ---- bytes -------------------------------------------------------------------------------------------------------

    def _read(self) -> bytes:
        parts = []
        try:
            while part := os.read(self._file, 1 << 20):
                parts.append(part)
        except OSError as error:
            raise RecordError(f"{self.path}: {error.strerror}") from None
        return b"".join(parts)

    def _cut(self, size: int) -> None:
        os.ftruncate(self._file, size)
        os.lseek(self._file, size, os.SEEK_SET)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write one line. Raises RecordError where there is no room; the file then ends with the line before."""
        plain = _plain(dict(entry))
        self._write(plain)
        self.lines.append(plain)

    def _write(self, entry: dict[str, Any]) -> None:
        data = json.dumps(entry, allow_nan=False).encode() + b"\n"
        start = os.lseek(self._file, 0, os.SEEK_CUR)
        try:
            written = 0
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError as error:
            with contextlib.suppress(OSError):
                self._cut(start)
            raise RecordError(
                f"cannot write {self.path}: {error.strerror}; the answers so far are kept, the same command goes on"
            ) from None

    def close(self) -> None:
        """Bring everything to the disk and close the file."""
        with contextlib.suppress(OSError):
            os.fsync(self._file)
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_record(path: str | os.PathLike[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Head and lines of a file of answers, half a line at its end left out. Raises RecordError, OSError."""
    data = Path(path).read_bytes()
    entries = [json.loads(raw) for raw in data[: data.rfind(b"\n") + 1].splitlines()]
    if not entries or entries[0].get("format") != FORMAT:
        raise RecordError(f"{path} is no file of answers")
    return entries[0], entries[1:]


def _plain(value: Any) -> Any:
    """``value`` for JSON: floats to 6 digits, null for what is not finite."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, entry in value.items():
        if isinstance(entry, Mapping):
            flat |= _flat(entry, f"{prefix}{name}.")
        else:
            flat[prefix + name] = entry
    return flat


def _word(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 24 else text[:12] + "…"
