"""What the commands print: plain text, dim remarks and one-line errors, never a control character that a model chose.

Everything goes through click, which drops colours where the stream is no terminal.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Sequence
from typing import TextIO

import click

from rim_edge.errors import RimError

# C0 without tab and newline, DEL, C1, and the characters that reorder what is beside them on the screen
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

_OPTIONS = {"n_ctx": "--ctx", "n_threads": "--threads", "use_mmap": "--mmap", "n_gpu_layers": "--gpu-layers"}
_OPTION = re.compile(r"\b(" + "|".join(_OPTIONS) + r")\b")


def clean(text: str) -> str:
    """``text`` without control characters (tab and newline stay): safe to print whatever a model or file name holds."""
    return _CONTROL.sub("", text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """``text`` cleaned, its white space joined to single blanks."""
    return " ".join(clean(text.replace("\n", " ")).split())


def prepare_streams() -> None:
    """Let output that the terminal's encoding lacks appear as ``?`` instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def is_terminal(stream: TextIO) -> bool:
    """Whether ``stream`` is a terminal (a closed or replaced stream is none)."""
    try:
        return stream.isatty()
    except (ValueError, AttributeError):
        return False


def is_dumb() -> bool:
    """Whether the terminal cannot move its cursor (``TERM=dumb`` or unset)."""
    return os.environ.get("TERM", "dumb") in ("dumb", "unknown", "")


def coloured(stream: TextIO) -> bool:
    """Whether to style what goes to ``stream``: a capable terminal, and ``NO_COLOR`` not set."""
    return is_terminal(stream) and not is_dumb() and not os.environ.get("NO_COLOR")


def out(text: str = "", *, dim: bool = False, bold: bool = False, newline: bool = True) -> None:
    """Print to standard output at once."""
    _echo(text, sys.stdout, dim=dim, bold=bold, newline=newline)


def remark(text: str, *, err: bool = True) -> None:
    """Print a dim line that is not part of the answer: a notice, a hint. A terminal gets it wrapped between words."""
    stream = sys.stderr if err else sys.stdout
    text = as_options(one_line(text))
    if coloured(stream):
        text = "\n".join(textwrap.wrap(text, shutil.get_terminal_size((80, 24)).columns) or [""])
    _echo(text, stream, dim=True)


def error(problem: str | Exception) -> None:
    """Print one line on standard error: ``Error: ...``; options of the Python API appear as those of the command."""
    text = os_error(problem) if isinstance(problem, OSError) and not isinstance(problem, RimError) else str(problem)
    _echo(f"Error: {as_options(one_line(text))}", sys.stderr)


def as_options(text: str) -> str:
    """``text`` with the names of the Python API as options of the command: ``blocks=4`` becomes ``--blocks 4``."""
    text = _OPTION.sub(lambda match: _OPTIONS[match.group()], text)
    return re.sub(r"\b(blocks|select)=(?=\w)", r"--\1 ", text)


def _echo(text: str, stream: TextIO, *, dim: bool = False, bold: bool = False, newline: bool = True) -> None:
    if (dim or bold) and coloured(stream):
        text = click.style(text, dim=dim or None, bold=bold or None)
    stream.write(text + "\n" if newline else text)
    stream.flush()


def os_error(problem: OSError) -> str:
    """An operating system error as ``what: why`` without Python's error number."""
    why = problem.strerror or str(problem)
    return f"{problem.filename}: {why}" if problem.filename else why


# ---- widths and tables ----------------------------------------------------------------------------------------------


def char_width(char: str) -> int:
    """Columns that a character takes: 0 for combining ones, 2 for wide ones, else 1."""
    if unicodedata.combining(char) or char in "\u200b\u200c\u200d\ufe0e\ufe0f":
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def text_width(text: str) -> int:
    """Columns that ``text`` takes."""
    return sum(map(char_width, text))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "", indent: str = "") -> list[str]:
    """Lines of a table with aligned columns; ``right`` has ``r`` for each column that is aligned to the right."""
    cells = [[one_line(cell) for cell in row] for row in (header, *rows)]
    widths = [max(text_width(row[i]) for row in cells) for i in range(len(header))]
    lines = []
    for row in cells:
        parts = []
        for i, cell in enumerate(row):
            pad = " " * (widths[i] - text_width(cell))
            parts.append(pad + cell if right[i : i + 1] == "r" else cell + pad)
        lines.append((indent + "  ".join(parts)).rstrip())
    return lines


# ---- numbers --------------------------------------------------------------------------------------------------------


def size(n_bytes: float) -> str:
    """Bytes in binary units: ``512 B``, ``7.4 MiB``, ``1.2 GiB``."""
    value, unit = float(n_bytes), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def count(n: int, noun: str) -> str:
    """``1 block``, ``8 blocks``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def milliseconds(ms: float) -> str:
    """``12 ms``, ``0.4 ms``, ``2.1 s``."""
    if ms >= 10_000:
        return f"{ms / 1000:.0f} s"
    if ms >= 1000:
        return f"{ms / 1000:.1f} s"
    return f"{ms:.0f} ms" if ms >= 10 else f"{ms:.1f} ms"
