"""What the pictures show, whoever draws them: panels of points, with the Pareto front, and places for the labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .pareto import Entry, accuracy_of, divergence_of, front, loss_of, size_of, ttft_of


@dataclass(frozen=True)
class Point:
    """One type: ``low`` and ``high`` are the ends of its error bar; ``on_front``: no other one beats it in both."""

    name: str
    x: float
    y: float
    low: float
    high: float
    on_front: bool
    reference: bool
    text: str


@dataclass(frozen=True)
class Panel:
    """One diagram. With ``log`` the y axis is logarithmic."""

    title: str
    x_label: str
    y_label: str
    log: bool
    points: list[Point] = field(default_factory=list)
    reference: tuple[str, float] | None = None  # name and x of the reference, where its y is not on the axis

    def limits(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Ranges of x and y that hold every point and its bar, with a margin; y in log10 where ``log``."""
        xs = [point.x for point in self.points] + ([self.reference[1]] if self.reference else [])
        ys = [self.scaled(value) for point in self.points for value in (point.low, point.y, point.high)]
        return _wider(min(xs), max(xs), 0.12), _wider(min(ys), max(ys), 0.1)

    def scaled(self, y: float) -> float:
        """``y`` on the axis."""
        return math.log10(y) if self.log else y


def panels(entries: Sequence[Entry]) -> list[Panel]:
    """Size and TTFT against divergence, and against accuracy where answers are known; empty ones are left out."""
    found = []
    costs: list[tuple[str, str, Callable[[Entry], float | None]]] = [
        ("Size", "file, MB", lambda entry: None if (size := size_of(entry)) is None else size / 1e6),
        ("Time to the first token", "TTFT after the memory blocks, ms", ttft_of),
    ]
    if not any((entry.get("speed") or {}).get("ttft_rim_ms") for entry in entries):
        costs[1] = ("Time to the first token", "TTFT, ms", ttft_of)
    for title, x_label, cost in costs:
        points = _points(entries, cost, divergence_of, _divergence_bar, True)
        lines = [(entry["type"], x) for entry in entries if entry["reference"] and (x := cost(entry)) is not None]
        y_label = "mean KL divergence, nats (lower is better)"
        found.append(Panel(f"{title} against divergence", x_label, y_label, True, points, lines[0] if lines else None))
    for title, x_label, cost in costs:
        found.append(
            Panel(f"{title} against accuracy", x_label, "right at the last readout, % (higher is better)", False,
                  _points(entries, cost, lambda e: None if (a := accuracy_of(e)) is None else 100 * a, _accuracy_bar,
                          False))
        )  # fmt: skip
    return [panel for panel in found if panel.points]


def _points(
    entries: Sequence[Entry],
    cost: Callable[[Entry], float | None],
    value: Callable[[Entry], float | None],
    bar: Callable[[Entry], tuple[float, float]],
    log: bool,
) -> list[Point]:
    best = front(entries, cost, divergence_of if log else loss_of)
    found = []
    for entry in entries:
        x, y = cost(entry), value(entry)
        if x is None or y is None or (log and y <= 0):  # the reference's divergence is 0: it has no place there
            continue
        low, high = bar(entry)
        text = f"{entry['type']}: {x:.3g}, {y:.4g} ({low:.4g} to {high:.4g})"
        low = max(low, y / 10) if log else low
        found.append(Point(entry["type"], x, y, low, high, entry["type"] in best, entry["reference"], text))
    return found


def _divergence_bar(entry: Entry) -> tuple[float, float]:
    kl = entry["quality"]["kl"]
    error = 1.96 * (kl["mean_se"] or 0.0)
    return kl["mean"] - error, kl["mean"] + error


def _accuracy_bar(entry: Entry) -> tuple[float, float]:
    final = entry["quality"]["selections"]["final"]
    return 100 * final["low"], 100 * final["high"]


def _wider(low: float, high: float, margin: float) -> tuple[float, float]:
    span = (high - low) or abs(high) or 1.0
    return low - margin * span, high + margin * span


# ---- axes and labels -------------------------------------------------------------------------------------------------


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between ``low`` and ``high``, at most about ``most``."""
    raw = (high - low) / most
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Values 1, 2, 5 times powers of ten (powers alone over a wide range) for an axis in log10."""
    factors = (1,) if high - low > 3 else (1, 2, 5)
    found = [f * 10.0**e for e in range(math.floor(low) - 1, math.ceil(high) + 1) for f in factors]
    return [value for value in found if low <= math.log10(value) <= high]


Box = tuple[float, float, float, float]  # left, top, right, bottom; y grows downwards


def place_labels(
    points: Sequence[tuple[float, float]], widths: Sequence[float], height: float, inside: Box
) -> list[Box]:
    """A box for each label, beside its point, over no other label or point as far as there is room.

    Args:
        points: places of the marks. widths: of the labels. height: of a label.
        inside: where the boxes must lie.
    """
    marks = [(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    placed: list[Box] = []
    for (x, y), width in zip(points, widths, strict=True):
        best, least = None, math.inf
        for distance in (9, 16, 26, 38, 52):
            for dx, dy in ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1)):
                left = x + dx * distance - (width if dx < 0 else width / 2 if dx == 0 else 0)
                top = y + dy * distance - height / 2
                box = (left, top, left + width, top + height)
                cost = distance + sum(1000 * _overlap(box, other) for other in [*marks, *placed])
                cost += 0 if _within(box, inside) else 1e9
                if cost < least:
                    best, least = box, cost
        assert best is not None
        placed.append(best)
    return placed


def _overlap(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def _within(a: Box, b: Box) -> bool:
    return a[0] >= b[0] and a[1] >= b[1] and a[2] <= b[2] and a[3] <= b[3]
