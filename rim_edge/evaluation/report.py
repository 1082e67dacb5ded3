"""Tables and remarks out of a summary, as rows of text; how they are drawn is the command's business."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Summary = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """A table of text; the first column is aligned to the left, all others to the right."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]


def label(mode: str, summary: Summary) -> str:
    """What a mode is called in a table."""
    if mode.startswith("block_"):
        return f"block {mode[6:]}{' final' if mode == summary['final'] else ''}"
    return {
        "any_block": "any block",
        "cot": "chain of thought",
        "auto": "auto depth",
        "vote": "by vote",
        "confidence": "by confidence",
        "probe": "by probe",
    }.get(mode, mode)


def percent(share: float | None, digits: int = 1) -> str:
    """``47.8``, or nothing."""
    return "" if share is None else f"{100 * share:.{digits}f}"


def p_value(p: float) -> str:
    """Two digits that count, or ``<1e-4``."""
    return "<1e-4" if p < 1e-4 else f"{p:.4f}" if p < 0.01 else f"{p:.2f}"


def accuracy_table(summary: Summary) -> Table:
    """Accuracy of each way to answer, and its paired differences."""
    n = summary["questions"]
    header = ["", "right", "%", "95 %", "vs direct", "p"]
    blocks = bool(summary["depth"])
    rows = []
    for name, mode in summary["modes"].items():
        low, high = mode["interval"]
        row = [label(name, summary), str(mode["right"]), percent(mode["accuracy"]), f"{percent(low)}-{percent(high)}"]
        for base in ("direct", "final") if blocks else ("direct",):
            found = mode["against"].get(base)
            row += ["", ""] if found is None else [f"{100 * (found['difference'] or 0):+.1f}", p_value(found["p"])]
        rows.append(tuple(row))
    return Table(f"Accuracy on {n} questions", (*header, *(("vs final", "p") if blocks else ())), rows)


def time_table(summary: Summary) -> Table | None:
    """Times of each way to answer, None where none were taken."""
    rows: list[tuple[str, ...]] = []
    for name, mode in summary["modes"].items():
        if (latency := mode.get("latency")) is None:
            continue
        cut = mode.get("cut")
        rows.append(
            (
                label(name, summary),
                *_range(latency["ttft_ms"]),
                *_range(latency["total_ms"]),
                f"{latency['slots']:.0f}",
                f"{mode['answer_tokens']:.1f}",
                "" if cut is None else percent(cut, 0),
            )
        )
    header = ("", "TTFT", "quartiles", "answer", "quartiles", "slots", "tokens", "cut %")
    title = f"Milliseconds of one question at a time, median of {summary['timed']}"
    return Table(title, header, rows) if rows else None


def _range(found: Mapping[str, float]) -> tuple[str, str]:
    return _ms(found["median"]), f"{_ms(found['low'])}-{_ms(found['high'])}"


def _ms(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def remarks(summary: Summary) -> list[str]:
    """Lines on adaptive depth, selections, the probe, and what went wrong."""
    lines = []
    if auto := summary.get("auto"):
        depths = ", ".join(f"{n} at {depth}" for depth, n in auto["depths"].items())
        lines.append(f"Auto depth: {auto['mean_depth']:.2f} blocks on average ({depths}).")
    shares = {name: share for name, share in summary.get("selections", {}).items() if share is not None}
    if shares:
        found = ", ".join(f"{name} {percent(share)} %" for name, share in shares.items())
        lines.append(f"Where some block is right, the choice is right: {found}.")
    if probe := summary.get("probe"):
        area = "not defined (all alike)" if probe["auroc"] is None else f"{percent(probe['auroc'])} %"
        lines.append(
            f"Probe: AUROC {area}, calibration error {percent(probe['calibration_error'])} %, "
            f"Brier score {probe['brier']:.3f}, over {probe['readouts']} readouts."
        )
    signals = {name: area for name, area in summary.get("signals", {}).items() if area is not None}
    if signals:
        found = ", ".join(f"{name} {percent(area)} %" for name, area in signals.items())
        lines.append(f"AUROC of other signals: {found}.")
    agreement = summary["agreement"]
    if agreement["timed"]:
        lines.append(
            f"{agreement['same']} of {agreement['timed']} answers given one at a time are those of the batches, "
            "word for word."
        )
    if summary["failed"]:
        lines.append(f"{summary['failed']} of the questions did not fit the context and count as wrong.")
    if summary["noticed"]:
        lines.append(f"{summary['noticed']} of the questions came with a notice of the model (field notices).")
    return lines
