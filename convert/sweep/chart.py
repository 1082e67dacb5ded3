"""The panels as SVG for the page: colours come from its style sheet, so that it reads on light and dark."""

from __future__ import annotations

from html import escape

from .panels import Panel, log_ticks, place_labels, ticks

WIDTH, HEIGHT = 560, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 34, 48
_LETTER = 6.6  # width of a letter of a label


def svg(panel: Panel) -> str:
    """One diagram. Points on the Pareto front are filled and joined; the reference is a square."""
    (x_low, x_high), (y_low, y_high) = panel.limits()

    def x_at(x: float) -> float:
        return _LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - _LEFT - _RIGHT)

    def y_at(scaled: float) -> float:
        return HEIGHT - _BOTTOM - (scaled - y_low) / (y_high - y_low) * (HEIGHT - _TOP - _BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(panel.title)}">']
    parts.append(f'<text class="title" x="{_LEFT}" y="20">{escape(panel.title)}</text>')
    for value in ticks(x_low, x_high):
        parts.append(f'<line class="grid" x1="{x_at(value):.1f}" x2="{x_at(value):.1f}" y1="{_TOP}" '
                     f'y2="{HEIGHT - _BOTTOM}"/>')  # fmt: skip
        parts.append(f'<text class="tick" x="{x_at(value):.1f}" y="{HEIGHT - _BOTTOM + 16}" '
                     f'text-anchor="middle">{value:g}</text>')  # fmt: skip
    for value in log_ticks(y_low, y_high) if panel.log else ticks(y_low, y_high):
        y = y_at(panel.scaled(value))
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    parts.append(f'<text class="label" x="{(_LEFT + WIDTH - _RIGHT) / 2}" y="{HEIGHT - 10}" '
                 f'text-anchor="middle">{escape(panel.x_label)}</text>')  # fmt: skip
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    parts.append(f'<text class="label" transform="translate(14 {middle}) rotate(-90)" '
                 f'text-anchor="middle">{escape(panel.y_label)}</text>')  # fmt: skip

    if panel.reference:
        x, name = x_at(panel.reference[1]), escape(panel.reference[0])
        parts.append(f'<line class="reference" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text class="tick" x="{x - 4:.1f}" y="{_TOP + 12}" text-anchor="end">{name}</text>')
    places = [(x_at(point.x), y_at(panel.scaled(point.y))) for point in panel.points]
    front = sorted(place for place, point in zip(places, panel.points, strict=True) if point.on_front)
    if len(front) > 1:
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in front)
        parts.append(f'<polyline class="front" points="{line}"/>')
    for (x, y), point in zip(places, panel.points, strict=True):
        low, high = y_at(panel.scaled(point.low)), y_at(panel.scaled(point.high))
        parts.append(f'<line class="bar" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
        kind = "best" if point.on_front else "other"
        shape = (
            f'<rect class="{kind}" x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10">'
            if point.reference
            else f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="5">'
        )
        end = "rect" if point.reference else "circle"
        parts.append(f"{shape}<title>{escape(point.text)}</title></{end}>")
    widths = [_LETTER * len(point.name) for point in panel.points]
    inside = (_LEFT, _TOP, WIDTH - _RIGHT, HEIGHT - _BOTTOM)
    for (left, _, _, bottom), point in zip(place_labels(places, widths, 14, inside), panel.points, strict=True):
        parts.append(f'<text class="name" x="{left:.1f}" y="{bottom - 3:.1f}">{escape(point.name)}</text>')
    return "".join([*parts, "</svg>"])
