"""Test data for the tests of evaluation, and a count of a file of answers that knows nothing of the package."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

#: the answers are some of those that the test model gives: directly, after block 2, 2, 3, 3 and 4
ROWS = [
    {"question": "Tom has 1 apples and 2 apples", "answer": "n"},
    {"question": "how many apples has Tom", "answer": "1 and 1\n#### a"},
    {"question": "the apples and the apples", "answer": "t"},
    {"question": "Tom has the apples", "answer": "l"},
    {"question": "many apples, how many", "answer": "y"},
    {"question": "1 2 1 2", "answer": "m"},
]


def write_rows(path: Path, rows: Iterable[dict[str, Any]] = ROWS) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def answers(path: Path) -> list[dict[str, Any]]:
    return [entry for entry in read_lines(path) if entry["kind"] == "answer"]


def count_right(path: Path) -> dict[str, int]:
    """Right answers of each mode."""
    found: dict[str, int] = {}
    for entry in answers(path):
        if entry["pass"] != "rim":
            found[entry["pass"]] = found.get(entry["pass"], 0) + entry["correct"]
            continue
        correct = {readout["block"]: readout["correct"] for readout in entry["readouts"]}
        for block, right in correct.items():
            found[f"block_{block}"] = found.get(f"block_{block}", 0) + right
        for name, block in entry["chosen"].items():
            if name != "final":
                found[name] = found.get(name, 0) + correct[block]
        found["any_block"] = found.get("any_block", 0) + any(correct.values())
    return found
