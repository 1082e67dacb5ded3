"""Writing the results of a sweep: ``sweep.json``, ``sweep.csv``, ``sweep.html`` and ``sweep.png``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ..whole_file import whole_file
from .page import page
from .pareto import divergence_of, front, loss_of, recommend, size_of, ttft_of
from .picture import picture
from .store import write_text
from .table import csv_text


def complete(report: dict[str, Any]) -> dict[str, Any]:
    """``report`` with the Pareto fronts and the recommendation."""
    entries = report["types"]
    fronts = {
        "size_divergence": front(entries, size_of, divergence_of),
        "size_loss": front(entries, size_of, loss_of),
        "ttft_divergence": front(entries, ttft_of, divergence_of),
        "ttft_loss": front(entries, ttft_of, loss_of),
    }
    return report | {"pareto": fronts, "recommendation": recommend(entries)}


def write_reports(report: dict[str, Any], folder: Path) -> list[str]:
    """Write the four files of a completed report; returns what a user should be told. Raises OSError."""
    notices = []
    write_text(folder / "sweep.csv", csv_text(report["types"]))
    write_text(folder / "sweep.html", page(report))
    if not _picture(report, folder / "sweep.png"):
        notices.append("sweep.png needs matplotlib: pip install 'rim-edge[report]', and run the command again")
    write_text(folder / "sweep.json", json.dumps(_finite(report), indent=1, allow_nan=False) + "\n")
    return notices


def _picture(report: dict[str, Any], path: Path) -> bool:
    data = report["data"]
    title = f"{report['source']['name']}, {data['n_questions']} questions of {data['name']}"
    drawn = picture(report["types"], title)
    if drawn is not None:
        with whole_file(path, force=True) as place:
            place.write_bytes(drawn)
    return drawn is not None


def _finite(value: Any) -> Any:
    """``value`` as JSON knows it: no NaN and no infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, (list, tuple)) else value
