"""``sweep.html``: everything in one file that needs nothing else, readable on light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from rim_edge.benchmark import machine

from .chart import svg
from .panels import panels
from .pareto import Entry
from .table import actual_types, megabytes, number, percent, plus_minus, slot_rows

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --dim: #60656c; --line: #d9dce0; --paper: #ffffff; --best: #0b66c3; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e7e9; --dim: #9aa0a8; --line: #3a3e44; --paper: #17191c; --best: #6db3f8; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 1180px; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.lead { font-size: 1.1rem; border-left: 4px solid var(--best); padding-left: .8rem; }
.dim, figcaption { color: var(--dim); font-size: .9rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); gap: 1rem; }
svg { width: 100%; height: auto; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; } svg .title { font-weight: 600; font-size: 13px; }
svg .tick, svg .label { fill: var(--dim); font-size: 11px; } svg .grid { stroke: var(--line); stroke-width: 1; }
svg .front { fill: none; stroke: var(--best); stroke-width: 1.5; stroke-dasharray: 4 3; }
svg .reference { stroke: var(--dim); stroke-dasharray: 2 3; }
svg .bar { stroke: var(--dim); stroke-width: 1.2; } svg .best { fill: var(--best); }
svg .other { fill: var(--paper); stroke: var(--dim); stroke-width: 1.5; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child, .left { text-align: left; } tr.best td:first-child { font-weight: 700; }
code { font-size: .85em; word-break: break-all; }
"""


def page(report: dict[str, Any]) -> str:
    """The page of a sweep; ``report`` is what ``sweep.json`` holds."""
    entries: list[Entry] = report["types"]
    data, name = report["data"], report["source"]["name"]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Sweep of {escape(name)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>Sweep of {escape(name)}</h1>",
        f'<p class="lead">{escape(report["recommendation"]["sentence"])}</p>',
        f'<p class="dim">{data["n_questions"]} questions of {escape(data["name"])}, {data["n_known_answers"]} with '
        f"known answers. {escape(machine.one_line(report['machine']))}. "
        f"{escape(_importance(report['importance']))}</p>",
        '<div class="charts">',
        *[f"<figure>{svg(panel)}</figure>" for panel in panels(entries)],
        "</div>",
        '<p class="dim">Filled and joined: the Pareto front (no other type is both cheaper and better). Square, '
        "or dotted line where its divergence of 0 has no place: the unquantized reference. Bars: 95 % intervals.</p>",
        *_quality(entries, report["floor"]),
        *_readouts(entries),
        *_speed(entries),
        *_files(entries),
        *_slots(report["slots"]),
        *([f"<h2>Remarks</h2><ul>{''.join(f'<li>{escape(n)}</li>' for n in report['notices'])}</ul>"]
          if report["notices"] else []),
        "</body></html>",
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def _importance(facts: dict[str, Any] | None) -> str:
    if facts is None:
        return "No importance matrix."
    if facts["from"] == "matrix":
        return f"Importance matrix from a file ({', '.join(facts['datasets']) or 'of unknown data'})."
    how = "text only" if facts["text_only"] else f"with memory blocks, slot weight {facts['slot_weight']:g}"
    return f"Importance matrix collected on {', '.join(facts['datasets'])} ({how})."


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], best: Sequence[bool] = ()) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = []
    for i, row in enumerate(rows):
        mark = ' class="best"' if best and best[i] else ""
        lines.append(f"<tr{mark}>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>")
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


def _quality(entries: Sequence[Entry], floor: dict[str, Any]) -> list[str]:
    answers = entries[0]["quality"]["n_known_answers"] > 0
    names = list(entries[0]["quality"]["selections"]) if answers else []
    header = ["type", "MB", "bits per weight", "KL mean", "median", "99th percentile", "same token %", "same answer %"]
    header += [f"{name} %" for name in names] + (["any block %", "lost", "won", "p"] if answers else [])
    header += ["probe AUROC", "probe error"] if entries[0]["quality"].get("probe") else []
    rows = []
    for entry in entries:
        quality, file = entry["quality"], entry["file"]
        kl = {} if entry["reference"] else quality["kl"]
        row = [entry["type"], megabytes(file["size_bytes"]), f"{file['bits_per_weight']:.2f}"]
        row += [plus_minus(kl, name) for name in ("mean", "median", "p99")]
        row += [percent(quality.get("top_agreement")), percent(quality.get("answer_agreement"))]
        if answers:
            final = quality["selections"]["final"]
            row += [percent(quality["selections"][name]) for name in names] + [percent(quality.get("any_block"))]
            row += [str(final.get(key, "")) for key in ("right_to_wrong", "wrong_to_right")]
            row += [number(final.get("p"))]
        if quality.get("probe"):
            row += [number(quality["probe"]["auroc"]), number(quality["probe"]["calibration_error"])]
        rows.append(row)
    noise = f" The reference differs from itself, in passes of another width, by {number(floor.get('mean'))} nats."
    text = (
        "KL divergence to the reference's answer distribution in nats, over the tokens of the reference's greedy "
        "answers at every readout; errors are standard errors over questions. Lost and won: last readouts that became "
        "wrong and right, with McNemar's exact p." + noise
    )
    best = [entry["reference"] for entry in entries]
    return ["<h2>Quality</h2>", _table(header, rows, best), f'<p class="dim">{escape(text)}</p>']


def _readouts(entries: Sequence[Entry]) -> list[str]:
    blocks = [part["block"] for part in entries[0]["quality"]["readouts"]]
    if len(blocks) < 2:
        return []
    names = ["direct" if block == 0 else f"block {block}" for block in blocks]
    parts = ["<h2>Every readout</h2>"]
    rows = [
        [entry["type"], *[plus_minus(part["kl"], "mean") for part in entry["quality"]["readouts"]]]
        for entry in entries
        if not entry["reference"]
    ]
    parts += ["<p>Mean KL divergence, nats</p>", _table(["type", *names], rows)]
    if entries[0]["quality"]["n_known_answers"]:
        rows = [
            [entry["type"], *[percent(part["accuracy"]) for part in entry["quality"]["readouts"]]] for entry in entries
        ]
        parts += ["<p>Right, %</p>", _table(["type", *names], rows)]
    return parts


def _speed(entries: Sequence[Entry]) -> list[str]:
    if not entries[0].get("speed"):
        return []
    columns = [
        ("TTFT direct, ms", "ttft_direct_ms", 1.0),
        ("TTFT RiM, ms", "ttft_rim_ms", 1.0),
        ("prefill, tokens/s", "prefill_tokens_per_s", 1.0),
        ("decode, tokens/s", "decode_tokens_per_s", 1.0),
        ("load, ms", "load_ms", 1.0),
        ("peak memory, MB", "peak_rss_bytes", 1e-6),
    ]
    rows = [[e["type"], *[_spread(e["speed"][key], scale) for _, key, scale in columns]] for e in entries]
    text = f"Medians of {entries[0]['speed']['rounds']} interleaved rounds, quartiles in brackets."
    return [
        "<h2>Speed</h2>",
        _table(["type", *[name for name, _, _ in columns]], rows),
        f'<p class="dim">{text}</p>',
    ]


def _spread(part: dict[str, Any] | None, scale: float) -> str:
    if part is None:
        return "-"
    return (
        f"{number(scale * part['median'], 4)} "
        f"[{number(scale * part['low_quartile'], 4)}, {number(scale * part['high_quartile'], 4)}]"
    )


def _files(entries: Sequence[Entry]) -> list[str]:
    rows = "".join(
        f'<tr><td>{escape(entry["type"])}</td><td class="left">{escape(actual_types(entry["file"], 6))}</td>'
        f'<td class="left">{escape(entry["file"]["name"])}</td>'
        f'<td class="left"><code>{entry["file"]["sha256"]}</code></td></tr>'
        for entry in entries
    )
    head = '<tr><th>type</th><th class="left">bytes by actual tensor type</th><th class="left">file</th>'
    head += '<th class="left">SHA-256</th></tr>'
    star = any(entry["file"]["fallbacks"] for entry in entries)
    text = "* Some tensors have another type than the recipe asks for: their rows do not fit its blocks."
    return [
        "<h2>Files</h2>",
        f'<div class="wide"><table>{head}{rows}</table></div>',
        *([f'<p class="dim">{text}</p>'] if star else []),
    ]


def _slots(slots: dict[str, Any] | None) -> list[str]:
    if not slots:
        return []
    text = "Only the three slot embeddings as that type leaves them, everything else F32; memory tokens left out."
    return [
        "<h2>Precision of the slot embeddings</h2>",
        _table(["rows as", "KL mean", "99th percentile", "same token %"], slot_rows(slots)),
        f'<p class="dim">{text}</p>',
    ]
