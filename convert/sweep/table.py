"""The results as text: tables for the terminal, rows for ``sweep.csv``."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from rim_edge.cli.console import table

from .pareto import Entry

_NONE = "-"


def number(value: float | None, digits: int = 3) -> str:
    """``value`` with ``digits`` significant digits, ``-`` for None."""
    return _NONE if value is None else f"{value:.{digits}g}"


def percent(part: dict[str, Any] | None) -> str:
    """A share as percent, ``-`` where it was not measured."""
    return _NONE if not part or part.get("share") is None else f"{100 * part['share']:.1f}"


def megabytes(size: float) -> str:
    """Bytes as decimal megabytes."""
    return f"{size / 1e6:,.2f}" if size < 1e8 else f"{size / 1e6:,.0f}"


def actual_types(file: dict[str, Any], most: int = 3) -> str:
    """``q4_k 61 % q6_k 30 % f32 9 %``: tensor types by their share of the bytes, a star where libllama fell back."""
    counts = file["tensor_types"]
    total = sum(count["bytes"] for count in counts.values()) or 1
    shares = sorted(((count["bytes"] / total, kind) for kind, count in counts.items()), reverse=True)
    text = " ".join(f"{kind} {100 * part:.0f} %" for part, kind in shares[:most])
    return text + (" ..." if len(shares) > most else "") + (" *" if file["fallbacks"] else "")


def plus_minus(kl: dict[str, Any], name: str) -> str:
    """``0.0123±0.0004``."""
    if kl.get(name) is None:
        return _NONE
    error = kl.get(f"{name}_se")
    return number(kl[name]) + ("" if error is None else f"±{number(error, 1)}")


def quality_lines(entries: Sequence[Entry]) -> list[str]:
    """The table of quality; the last readout's accuracy and what changed against the reference."""
    answers = entries[0]["quality"]["n_known_answers"] > 0
    several = len(entries[0]["quality"]["readouts"]) > 1
    header = ["type", "MB", "bits", "KL mean", "KL median", "KL p99", "same token %", "same answer %"]
    header += ["right %", "lost", "won"] if answers else []
    header += ["any block %"] if answers and several else []
    rows = []
    for entry in entries:
        quality, file = entry["quality"], entry["file"]
        kl = {} if entry["reference"] else quality["kl"]
        row = [entry["type"], megabytes(file["size_bytes"]), f"{file['bits_per_weight']:.2f}"]
        row += [plus_minus(kl, "mean"), plus_minus(kl, "median"), plus_minus(kl, "p99")]
        row += [percent(quality.get("top_agreement")), percent(quality.get("answer_agreement"))]
        if answers:
            final = quality["selections"]["final"]
            row += [percent(final), str(final.get("right_to_wrong", "")), str(final.get("wrong_to_right", ""))]
            row += [percent(quality.get("any_block"))] if several else []
        rows.append(row)
    return table(header, rows, right=" " + "r" * (len(header) - 1))


def speed_lines(entries: Sequence[Entry]) -> list[str]:
    """The table of speed: medians and quartiles; empty where nothing was timed."""
    if not entries[0].get("speed"):
        return []
    header = ["type", "TTFT direct ms", "TTFT RiM ms", "prefill t/s", "decode t/s", "load ms", "peak MB"]
    rows = []
    for entry in entries:
        speed = entry["speed"]
        row = [entry["type"], _spread(speed["ttft_direct_ms"]), _spread(speed["ttft_rim_ms"])]
        row += [_spread(speed["prefill_tokens_per_s"]), _spread(speed["decode_tokens_per_s"])]
        row += [_spread(speed["load_ms"]), _spread(speed["peak_rss_bytes"], 1e-6)]
        rows.append(row)
    return table(header, rows, right=" rrrrrr")


def type_lines(entries: Sequence[Entry]) -> list[str]:
    """The table of what is really in each file."""
    rows = [[entry["type"], actual_types(entry["file"], 6)] for entry in entries]
    return table(["type", "share of bytes by actual tensor type"], rows)


def slot_rows(slots: dict[str, Any]) -> list[list[str]]:
    """Of each type: its name, mean and 99th percentile of the KL divergence, and the share of equal tokens."""
    rows = []
    for kind, found in slots.items():
        if "skipped" in found:
            rows.append([kind, found["skipped"], "", ""])
        else:
            kl = found["kl"]
            rows.append([kind, plus_minus(kl, "mean"), plus_minus(kl, "p99"), percent(found["top_agreement"])])
    return rows


def slot_lines(slots: dict[str, Any]) -> list[str]:
    """The table of the slot embeddings."""
    return table(["slots as", "KL mean", "KL p99", "same token %"], slot_rows(slots), right=" rrr")


def _spread(part: dict[str, Any] | None, scale: float = 1.0) -> str:
    """``12.3 (12.1-12.9)``: median and quartiles."""
    if part is None:
        return _NONE
    median, low, high = (scale * part[name] for name in ("median", "low_quartile", "high_quartile"))
    digits = 0 if median >= 100 else 1 if median >= 10 else 2
    return f"{median:,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})"


# ---- CSV ------------------------------------------------------------------------------------------------------------


def csv_text(entries: Sequence[Entry]) -> str:
    """One line per type and readout; the readout ``all`` stands for all memory blocks together."""
    header = ["type", "size_bytes", "bits_per_weight", "sha256", "readout", "kl_mean", "kl_mean_se", "kl_median"]
    header += ["kl_median_se", "kl_p99", "kl_p99_se", "top_agreement", "answer_agreement", "n_answers", "accuracy"]
    header += ["right_to_wrong", "wrong_to_right", "ttft_direct_ms", "ttft_rim_ms", "decode_tokens_per_s", "load_ms"]
    header += ["peak_rss_bytes"]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    for entry in entries:
        readouts = [(str(part["block"]), part) for part in entry["quality"]["readouts"]]
        overall = {name: entry["quality"].get(name) for name in ("kl", "top_agreement", "answer_agreement")}
        overall["accuracy"] = entry["quality"]["selections"]["final"]
        for name, part in [*readouts, ("all", overall)]:
            writer.writerow(_csv_row(entry, name, part))
    return file.getvalue()


def _csv_row(entry: Entry, name: str, part: dict[str, Any]) -> list[Any]:
    file, kl = entry["file"], part.get("kl") or {}
    accuracy, speed = part.get("accuracy") or {}, entry.get("speed") or {}
    row = [entry["type"], file["size_bytes"], file["bits_per_weight"], file["sha256"], name]
    row += [kl.get(key) for key in ("mean", "mean_se", "median", "median_se", "p99", "p99_se")]
    row += [(part.get(key) or {}).get("share") for key in ("top_agreement", "answer_agreement")]
    row += [accuracy.get(key) for key in ("n", "share", "right_to_wrong", "wrong_to_right")]
    keys = ("ttft_direct_ms", "ttft_rim_ms", "decode_tokens_per_s", "load_ms", "peak_rss_bytes")
    return row + [(speed.get(key) or {}).get("median") for key in keys]
