"""An answer on the screen: the line below it, the table of its readouts; and values as lines of JSON."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from rim_edge.cli import console

if TYPE_CHECKING:
    from rim_edge.results import Answer, Readout

# control characters that JSON itself leaves as they are
_JSON_CONTROL = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def depth_words(answer: Answer) -> str:
    """``8 blocks``, ``direct``, ``4 blocks (auto), readout 3 by probe``."""
    if answer.depth == 0:
        return "direct"
    words = console.count(answer.depth, "block")
    if answer.blocks == "auto":
        words += " (auto)"
    if answer.select != "final":
        words += f", readout {answer.readout} by {answer.select}"
    return words


def summary(answer: Answer) -> str:
    """Depth and time: ``8 blocks · 12 ms to first token · 14 ms``."""
    timings = answer.timings
    parts = [
        depth_words(answer),
        f"{console.milliseconds(timings.ttft_ms)} to first token",
        console.milliseconds(timings.total_ms),
    ]
    return " · ".join(parts + _endings(answer))


def footer(answer: Answer) -> str:
    """Depth, time to the first token and speed: ``8 blocks · 12 ms to first token · 85 tokens/s``."""
    timings = answer.timings
    parts = [depth_words(answer), f"{console.milliseconds(timings.ttft_ms)} to first token"]
    if answer.tokens.answer > 1 and math.isfinite(timings.tokens_per_s) and timings.tokens_per_s > 0:
        speed = timings.tokens_per_s
        parts.append(f"{speed:.0f} tokens/s" if speed >= 10 else f"{speed:.1f} tokens/s")
    return " · ".join(parts + _endings(answer))


def _endings(answer: Answer) -> list[str]:
    words = {"length": "cut at --max-tokens", "context": "cut: the context is full", "cancelled": "stopped"}
    return [words[answer.finish]] if answer.finish in words else []


def readout_table(answer: Answer, *, width: int = 120) -> list[str]:
    """The readouts as lines of a table; ``>`` marks the one that gave the answer. Empty where there are no readouts.

    Long answers are cut so that the lines stay within ``width`` columns.
    """
    readouts = answer.readouts
    if not readouts:
        return []
    columns: list[tuple[str, str, list[str]]] = [
        ("", "", [">" if r.block == answer.readout else "" for r in readouts]),
        ("block", "r", [str(r.block) for r in readouts]),
        ("top token", "", [repr(console.clean(r.top_token)) for r in readouts]),
        ("probability", "r", [f"{r.probability:.3f}" for r in readouts]),
        ("entropy", "r", [f"{r.entropy:.3f}" for r in readouts]),
    ]
    if any(r.probe is not None for r in readouts):
        columns.append(("probe", "r", ["" if r.probe is None else f"{r.probe:.3f}" for r in readouts]))
    if any(r.confidence is not None for r in readouts):
        columns.append(("confidence", "r", ["" if r.confidence is None else f"{r.confidence:.3f}" for r in readouts]))
    if any(r.text is not None for r in readouts):
        used = sum(max(console.text_width(cell) for cell in (title, *cells)) + 2 for title, _, cells in columns)
        columns.append(("answer", "", [_short(r, max(20, width - used)) for r in readouts]))
    rows = [list(row) for row in zip(*(column[2] for column in columns), strict=True)]
    right = "".join(column[1] or "l" for column in columns)
    return console.table([column[0] for column in columns], rows, right=right)


def _short(readout: Readout, width: int) -> str:
    text = console.one_line((readout.text if readout.value is None else readout.value) or "")
    if console.text_width(text) <= width:
        return text
    while console.text_width(text) > width - 1:
        text = text[: min(width, len(text) - 1)]
    return text + "…"


def json_line(value: Any) -> str:
    """``value`` as one line of JSON: no raw control characters, floats to 6 digits, null for what is not finite."""
    text = json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)
    text = _JSON_CONTROL.sub(lambda match: f"\\u{ord(match.group()):04x}", text)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")  # a lone surrogate becomes its JSON escape


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value
