"""``sweep.png``: the panels of the page, drawn by matplotlib (extra ``rim-edge[report]``)."""

from __future__ import annotations

import io
from typing import Any

from .panels import Panel, log_ticks, panels, place_labels, ticks
from .pareto import Entry

_BEST, _OTHER, _GRID = "#0b66c3", "#60656c", "#d9dce0"


def picture(entries: list[Entry], title: str) -> bytes | None:
    """The bytes of a PNG file; None where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    shown = panels(entries)
    columns = max(1, min(2, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    figure = Figure(figsize=(6.4 * columns, 4.6 * rows + 0.5), dpi=120, layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12)
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(len(shown))]
    for axis, panel in zip(axes, shown, strict=True):
        _draw(axis, panel)
    canvas.draw()  # places are known once the layout is made
    for axis, panel in zip(axes, shown, strict=True):
        _label(axis, panel)
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": "rim-edge"})
    return file.getvalue()


def _draw(axis: Any, panel: Panel) -> None:
    (x_low, x_high), (y_low, y_high) = panel.limits()
    axis.set_xlim(x_low, x_high)
    axis.set_ylim(y_low, y_high)
    axis.set_title(panel.title, fontsize=10, loc="left")
    axis.set_xlabel(panel.x_label, fontsize=9)
    axis.set_ylabel(panel.y_label, fontsize=9)
    values = log_ticks(y_low, y_high) if panel.log else ticks(y_low, y_high)
    axis.set_yticks([panel.scaled(value) for value in values], [f"{value:g}" for value in values])
    axis.tick_params(labelsize=8)
    axis.grid(color=_GRID, linewidth=0.7)
    axis.set_axisbelow(True)
    if panel.reference:
        name, x = panel.reference
        axis.axvline(x, color=_OTHER, linewidth=0.9, linestyle=":")
        axis.annotate(name, (x, 1), xytext=(-3, -3), textcoords="offset points", fontsize=8, color=_OTHER, ha="right",
                      va="top", annotation_clip=False, xycoords=("data", "axes fraction"))  # fmt: skip
    front = sorted((point.x, panel.scaled(point.y)) for point in panel.points if point.on_front)
    axis.plot([x for x, _ in front], [y for _, y in front], color=_BEST, linewidth=1.2, linestyle="--")
    for point in panel.points:
        ends = [panel.scaled(point.low), panel.scaled(point.high)]
        axis.plot([point.x, point.x], ends, color=_OTHER, linewidth=1.0)
        axis.plot(
            [point.x],
            [panel.scaled(point.y)],
            marker="s" if point.reference else "o",
            markersize=7,
            markerfacecolor=_BEST if point.on_front else "white",
            markeredgecolor=_BEST if point.on_front else _OTHER,
            zorder=3,
        )


def _label(axis: Any, panel: Panel) -> None:
    """Names beside the points, in the pixels of the finished layout."""
    frame = axis.get_window_extent()
    scale = axis.figure.dpi / 72
    height = axis.figure.bbox.height
    seen = [axis.transData.transform((point.x, panel.scaled(point.y))) for point in panel.points]
    places = [(x / scale, (height - y) / scale) for x, y in seen]  # in points, y downwards
    inside = (frame.x0 / scale, (height - frame.y1) / scale, frame.x1 / scale, (height - frame.y0) / scale)
    widths = [5.4 * len(point.name) for point in panel.points]
    for (left, _, _, bottom), point in zip(place_labels(places, widths, 11, inside), panel.points, strict=True):
        at = axis.transData.inverted().transform((left * scale, height - (bottom - 2.5) * scale))
        axis.text(at[0], at[1], point.name, fontsize=8.5, zorder=4)
