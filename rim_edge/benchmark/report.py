"""A benchmark's report as lines of text, at most 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rim_edge.benchmark import machine
from rim_edge.benchmark.statistics import summarize

OURS = "rim-edge"
#: heading, cases of the group, figure of them, whether each is also shown in relation to the first one
_SECTIONS = (
    ("to first answer token, ms", "answers", "ttft_ms", True),
    ("whole answer, ms", "answers", "total_ms", True),
    ("pass with its readouts, ms", "readouts", "pass_ms", True),
    ("decoding them, ms a step", "readouts", "step_ms", True),
    ("second turn of a chat, ms", "second turn", "pass_ms", True),
    ("prefill, tokens/s", "prefill", "tokens_per_s", False),
    ("decode, tokens/s", "decode", "tokens_per_s", False),
)
_PROCESS = (("load_ms", "load, ms"), ("start_ms", "start to loaded, ms"), ("first_ms", "first question, ms"))
_COLUMNS = 80
_LABEL = 30  # columns of the first column, so that all tables line up


def lines(report: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """The report's lines, and whether each is a heading."""
    found = [(line, False) for line in _head(report)]
    for title, group, figure, related in _SECTIONS:
        rows = [case for case in report["cases"] if case["group"] == group]
        if rows:
            found += [("", False), *_section(title, rows, figure, related)]
    found += [("", False), *_process(report)]
    if report["settings"]["compare"]:
        found += [("", False), *_peer(report)]
    if report["limits"]:
        found += [("", False), *_limits(report)]
    for reason in report["left_out"]:
        found.append((f"Left out: {reason}", False))
    return found


def number(value: float) -> str:
    """Three digits that count: ``0.0123``, ``4.56``, ``78.9``, ``1234``."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _head(report: Mapping[str, Any]) -> list[str]:
    model, settings = report["model"], report["settings"]
    size = f"{model['n_params'] / 1e6:.4g} M parameters, {model['weight_bytes'] / 2**20:.3g} MiB of weights"
    text = [
        f"{settings['threads']} thread{'s' if settings['threads'] > 1 else ''}",
        f"question of {settings['prompt_tokens']} tokens",
        f"answer of {settings['answer_tokens']}",
    ]
    if model["blocks"]:
        text.insert(2, f"{model['blocks']} blocks ({model['slots']} slots)")
    if settings["cot_tokens"]:
        text.append(f"thought of {settings['cot_tokens']}")
    paragraphs = (
        f"{model['description']}, {size}",
        machine.one_line(report["machine"]),
        ", ".join(text),
        f"medians of {settings['rounds']} rounds; limit: what this machine could reach, measured in the same run",
    )
    return [line for paragraph in paragraphs for line in textwrap.wrap(paragraph, _COLUMNS)]


def _section(title: str, cases: Sequence[Mapping[str, Any]], figure: str, related: bool) -> list[tuple[str, bool]]:
    header = ["", "median", "quartiles", "x first" if related else "", "limit", "share"]
    rows = []
    base = cases[0]["engines"][OURS][figure]["median"]
    for case in cases:
        found = case["engines"][OURS][figure]
        rows.append(
            [
                case["label"],
                number(found["median"]),
                _quartiles(found),
                f"{found['median'] / base:.2f}" if related and base else "",
                number(found["limit"]) if "limit" in found else "",
                f"{found['share']:.0%}" if "share" in found else "",
            ]
        )
    return _table(title, header, rows)


def _quartiles(found: Mapping[str, float]) -> str:
    return f"{number(found['low_quartile'])}-{number(found['high_quartile'])}"


def _process(report: Mapping[str, Any]) -> list[tuple[str, bool]]:
    rows = []
    for case in report["cases"]:
        if case["group"] != "a new process":
            continue
        for figure, label in _PROCESS:
            found = case["engines"][OURS][figure]
            rows.append([label, number(found["median"]), _quartiles(found)])
        loaded = [sample["loaded_rss_bytes"] for sample in case["samples"][OURS]]
        peak = case["engines"][OURS]["peak_rss_bytes"]
        rows.append(["peak memory, loaded, MiB", number(summarize(loaded).median / 2**20), ""])
        rows.append(["peak memory, answered, MiB", number(peak["median"] / 2**20), ""])
    rows.append(["peak memory, this run, MiB", number(report["peak_rss_bytes"][OURS] / 2**20), ""])
    return _table("a new process", ["", "median", "quartiles"], rows)


def _peer(report: Mapping[str, Any]) -> list[tuple[str, bool]]:
    name = report["settings"]["compare"]
    rows = []
    for _, group, figure, _ in _SECTIONS:
        for case in report["cases"]:
            if case["group"] == group and "ratio" in case:
                what = {"ttft_ms": "first", "total_ms": "whole"}.get(figure, group)
                rows.append(_peer_row(f"{what}: {case['label']}", case, figure, name))
    for case in report["cases"]:
        if case["group"] == "a new process" and "ratio" in case:
            rows.append(_peer_row("load, ms", case, "load_ms", name))
            rows.append(_peer_row("peak memory, MiB", case, "peak_rss_bytes", name, 2**20))
    header = ["", OURS, "peer", "better by", "quartiles"]
    return [
        *_table(f"against {name}", header, rows),
        ("  same tokens, in turn; better by 2: half the time or memory, twice the speed", False),
    ]


def _peer_row(label: str, case: Mapping[str, Any], figure: str, name: str, unit: int = 1) -> list[str]:
    ratio = case["ratio"][figure]
    return [
        label,
        *(number(case["engines"][engine][figure]["median"] / unit) for engine in (OURS, name)),
        f"{ratio['median']:.2f}",
        f"{ratio['low_quartile']:.2f}-{ratio['high_quartile']:.2f}",
    ]


def _limits(report: Mapping[str, Any]) -> list[tuple[str, bool]]:
    rows = []
    for found in report["limits"]:
        threads = f"{found['n_threads']} thread{'s' if found['n_threads'] > 1 else ''}"
        for key, what in (("read_memory", "read memory"), ("read_model", "read the weights' size")):
            size = f"{found[key]['buffer_bytes'] / 2**20:.0f} MiB"
            rows.append([what, threads, f"{max(found[key]['bytes_per_s']) / 1e9:.1f} GB/s", size])
        for kind, rates in found["products"]["operations_per_s"].items():
            mark = "peak" if kind == found["peak"]["kind"] else ""
            rows.append([f"matrix product, {kind}", threads, f"{max(rates) / 1e9:.0f} GFLOP/s", mark])
    return _table("limits of this machine", ["", "", "", ""], rows)


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[tuple[str, bool]]:
    """Heading and aligned rows; the first column is to the left, the others to the right."""
    cells = [[title, *header[1:]], *[[f"  {row[0]}", *row[1:]] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    widths[0] = max(_LABEL, widths[0])
    found = []
    for index, row in enumerate(cells):
        rest = "".join("  " + cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        found.append(((row[0].ljust(widths[0]) + rest).rstrip(), index == 0))
    return found
