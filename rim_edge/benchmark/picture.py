"""A benchmark's report as a picture: latency of each way to answer, speed, and the share of the machine's limits."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rim_edge.benchmark import machine
from rim_edge.benchmark.report import number
from rim_edge.errors import OptionError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {"rim-edge": "#1f6f8b"}
_OTHER, _LIMIT = "#d08c3f", "#555555"


def check_picture(path: Path) -> None:
    """Raise OptionError where no picture can become ``path``: the name, or matplotlib missing."""
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise OptionError(f"{path}: a picture is written as .png, .svg or .pdf")
    if importlib.util.find_spec("matplotlib") is None:
        raise OptionError("a picture needs matplotlib: pip install 'rim-edge[report]'")


def draw(report: Mapping[str, Any], path: Path, kind: str) -> None:
    """Write the picture to ``path`` in the format ``kind``: ``png``, ``svg`` or ``pdf``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8.5), layout="constrained")
    FigureCanvasAgg(figure)
    model, settings = report["model"], report["settings"]
    figure.suptitle(
        f"{model['description']}, {model['n_params'] / 1e6:.4g} M parameters, threads: {settings['threads']}\n"
        f"{machine.one_line(report['machine'])}",
        fontsize=11,
    )
    axes = figure.subplots(2, 2)
    thought = " (answer after thought)" if settings["cot_tokens"] else ""
    _bars(axes[0][0], report, "answers", "ttft_ms", f"time to first token{thought}, ms")
    _bars(axes[0][1], report, "answers", "total_ms", f"whole answer of {settings['answer_tokens']} tokens, ms")
    _bars(axes[1][0], report, "prefill", "tokens_per_s", "prefill, tokens/s")
    _bars(axes[1][1], report, "decode", "tokens_per_s", "decode, tokens/s")
    names = list(dict.fromkeys(name for case in report["cases"] for name in case["engines"]))
    handles, labels = axes[0][0].get_legend_handles_labels()
    if len(names) > 1 or "limit of this machine" in labels:
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=130, format=kind)


def _bars(axes: Axes, report: Mapping[str, Any], group: str, figure: str, title: str) -> None:
    """Horizontal bars: the median, its quartiles as a line, the machine's limit as a mark."""
    cases: Sequence[Mapping[str, Any]] = [case for case in report["cases"] if case["group"] == group]
    names = list(dict.fromkeys(name for case in report["cases"] for name in case["engines"]))
    height = 0.8 / len(names)
    for index, name in enumerate(names):
        places, medians, below, above = [], [], [], []
        for row, case in enumerate(cases):
            if name in case["engines"]:
                found = case["engines"][name][figure]
                places.append(row + (index - (len(names) - 1) / 2) * height)
                medians.append(found["median"])
                below.append(found["median"] - found["low_quartile"])
                above.append(found["high_quartile"] - found["median"])
        bars = axes.barh(
            places,
            medians,
            height,
            xerr=[below, above],
            color=_COLOURS.get(name, _OTHER),
            error_kw={"elinewidth": 1.0, "ecolor": "#222222"},
            label=name,
        )
        axes.bar_label(bars, [number(value) for value in medians], padding=4, fontsize=8)
    limits = [(row, case["engines"]["rim-edge"][figure].get("limit")) for row, case in enumerate(cases)]
    known = [(row, limit) for row, limit in limits if limit is not None]
    if known:
        axes.vlines(
            [limit for _, limit in known],
            [row - 0.42 for row, _ in known],
            [row + 0.42 for row, _ in known],
            colors=_LIMIT,
            linestyles="dashed",
            label="limit of this machine",
        )
    axes.set_yticks(range(len(cases)), [case["label"] for case in cases], fontsize=9)
    axes.invert_yaxis()
    axes.set_title(title, fontsize=10, loc="left")
    axes.margins(x=0.15)
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)
