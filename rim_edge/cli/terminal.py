"""The terminal while an answer streams: keys typed then are kept for the prompt, not echoed into the text."""

from __future__ import annotations

import atexit
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

try:
    import termios
except ImportError:  # not POSIX
    termios = None  # type: ignore[assignment]

_saved: list[tuple[int, list[Any]]] = []


def columns() -> int:
    """Width of the terminal, 80 where there is none."""
    return shutil.get_terminal_size((80, 24)).columns


@contextmanager
def without_echo() -> Iterator[None]:
    """Typed keys do not show until the end; Ctrl-C still interrupts."""
    if termios is None or not sys.stdin.isatty():
        yield
        return
    descriptor = sys.stdin.fileno()
    try:
        before = termios.tcgetattr(descriptor)
        quiet = termios.tcgetattr(descriptor)
        quiet[3] &= ~termios.ECHO
        termios.tcsetattr(descriptor, termios.TCSANOW, quiet)
    except termios.error:
        yield
        return
    _saved.append((descriptor, before))
    try:
        yield
    finally:
        restore()


@atexit.register
def restore() -> None:
    """Bring the terminal back to the state before ``without_echo``."""
    while _saved:
        descriptor, before = _saved.pop()
        with suppress(termios.error, OSError):
            termios.tcsetattr(descriptor, termios.TCSANOW, before)
