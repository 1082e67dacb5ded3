"""The numbers of an evaluation, out of its file of answers and nothing else.

All ways to answer are compared on the same questions: those on which every pass has an answer. A question that did not
fit the context counts as wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rim_edge.evaluation import statistics as stats

Entry = Mapping[str, Any]


def summarize(head: Entry, lines: Sequence[Entry], asked: Collection[int] | None = None) -> dict[str, Any]:
    """The summary, ready for JSON; shares and p-values are 0..1, times milliseconds.

    Args:
        head, lines: as :func:`rim_edge.evaluation.record.read_record` gives them.
        asked: lines of the data that this evaluation is about; None: all that have answers.

    Returns:
        ``questions``: how many were compared. ``modes``: for each way to answer ``right``, ``accuracy``, ``interval``
        (Wilson, 95 %), ``against`` (``direct`` and ``final``: ``gained``, ``lost``, ``difference`` with ``interval``,
        ``p`` by McNemar's exact test), ``answer_tokens``, ``cut`` (share that ended at the token limit) and
        ``latency`` where they were taken. ``final``: the mode of the last block. ``any_block``: right if some block is.
        ``auto``, ``selections``, ``probe``, ``signals``: more on these, where there are blocks. ``agreement``: timed
        answers that say the same as those in batches.
    """
    passes = list(head["passes"])
    answers: dict[str, dict[int, Entry]] = {name: {} for name in passes}
    times: dict[str, dict[int, Entry]] = {}
    for entry in lines:
        if asked is not None and entry["line"] not in asked:
            continue
        if entry["kind"] == "answer" and entry["pass"] in answers:
            answers[entry["pass"]][entry["line"]] = entry
        elif entry["kind"] == "latency":
            times.setdefault(entry["mode"], {})[entry["line"]] = entry
    complete = sorted(set.intersection(*(set(found) for found in answers.values())))
    depth = int(head["depth"])
    rights = _rights(answers, complete, depth)
    final = f"block_{depth}" if depth else "direct"
    modes = {name: _mode(name, right, rights, final, answers, complete, times) for name, right in rights.items()}
    summary: dict[str, Any] = {
        "model": head["model"],
        "data": head["data"],
        "settings": head["must_match"]["settings"],
        "questions": len(complete),
        "failed": sum(any("error" in answers[name][line] for name in passes) for line in complete),
        "noticed": sum(bool(answers["rim" if depth else "direct"][line].get("notices")) for line in complete),
        "depth": depth,
        "final": final,
        "modes": modes,
        "timed": max((len(found) for found in times.values()), default=0),
        "agreement": _agreement(answers, times, final, complete),
    }
    if depth:
        rim = [answers["rim"][line] for line in complete if "readouts" in answers["rim"][line]]
        summary |= _blocks(rim, rights, depth)
    return summary


def _rights(answers: Mapping[str, Mapping[int, Entry]], complete: Sequence[int], depth: int) -> dict[str, list[bool]]:
    """For each way to answer which of the complete questions are right."""
    rights = {"direct": [bool(answers["direct"][line]["correct"]) for line in complete]}
    if depth:
        rim = [answers["rim"][line] for line in complete]
        for block in range(1, depth + 1):
            rights[f"block_{block}"] = [_block_right(entry, block) for entry in rim]
        names = dict.fromkeys(name for entry in rim for name in entry.get("chosen", {}) if name != "final")
        for name in sorted(names, key="auto vote confidence probe".find):
            rights[name] = [_block_right(entry, entry.get("chosen", {}).get(name, 0)) for entry in rim]
        rights["any_block"] = [any(r["correct"] for r in entry.get("readouts", ())) for entry in rim]
    if "cot" in answers:
        rights["cot"] = [bool(answers["cot"][line]["correct"]) for line in complete]
    return rights


def _block_right(entry: Entry, block: int) -> bool:
    return any(readout["correct"] for readout in entry.get("readouts", ()) if readout["block"] == block)


def _mode(
    name: str,
    right: Sequence[bool],
    rights: Mapping[str, Sequence[bool]],
    final: str,
    answers: Mapping[str, Mapping[int, Entry]],
    complete: Sequence[int],
    times: Mapping[str, Mapping[int, Entry]],
) -> dict[str, Any]:
    k, n = sum(right), len(right)
    mode: dict[str, Any] = {
        "right": k,
        "accuracy": k / n if n else None,
        "interval": stats.wilson_interval(k, n),
        "against": {
            label: against(right, rights[base])
            for label, base in (("direct", "direct"), ("final", final))
            if base != name and not (label == "final" and final == "direct")
        },
    }
    source = {"direct": "direct", final: "rim" if final != "direct" else "direct", "cot": "cot"}.get(name)
    timed = times.get(name, {})
    if source is not None:
        entries = [answers[source][line] for line in complete if "tokens" in answers[source][line]]
        mode["answer_tokens"] = stats.mean([entry["tokens"]["answer"] for entry in entries])
        mode["cut"] = stats.mean([entry["finish"] == "length" for entry in entries])
    elif timed:  # of a readout that is not the last one only the timed answers are counted
        mode["answer_tokens"] = stats.mean([entry["tokens"]["answer"] for entry in timed.values()])
    if timed:
        mode["latency"] = {
            "questions": len(timed),
            **{key: _spread([entry[key] for entry in timed.values()]) for key in ("ttft_ms", "total_ms")},
            "prompt_tokens": stats.mean([entry["tokens"]["prompt"] for entry in timed.values()]),
            "slots": stats.mean([entry["tokens"]["slots"] for entry in timed.values()]),
        }
    return mode


def against(right: Sequence[bool], base: Sequence[bool]) -> dict[str, Any]:
    """Paired comparison of two ways to answer the same questions: see :func:`summarize`."""
    gained = sum(a and not b for a, b in zip(right, base, strict=True))
    lost = sum(b and not a for a, b in zip(right, base, strict=True))
    n = len(right)
    return {
        "gained": gained,
        "lost": lost,
        "difference": (gained - lost) / n if n else None,
        "interval": stats.paired_interval(gained, lost, n),
        "p": stats.mcnemar_exact(gained, lost),
    }


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    found = stats.spread(values)
    return None if found is None else {"median": found.median, "low": found.low, "high": found.high}


def _agreement(
    answers: Mapping[str, Mapping[int, Entry]],
    times: Mapping[str, Mapping[int, Entry]],
    final: str,
    complete: Sequence[int],
) -> dict[str, int]:
    """Timed answers, and how many of them are word for word those of the batches."""
    known, same = 0, 0
    for mode, found in times.items():
        for line, entry in found.items():
            text = _batched(answers, mode, line)
            if line in complete and text is not None:
                known += 1
                same += text == entry["text"]
    return {"timed": known, "same": same}


def _batched(answers: Mapping[str, Mapping[int, Entry]], mode: str, line: int) -> Any:
    if mode in ("direct", "cot"):
        return answers.get(mode, {}).get(line, {}).get("text")
    entry = answers.get("rim", {}).get(line, {})
    block = int(mode[6:]) if mode.startswith("block_") else entry.get("chosen", {}).get(mode)
    return next((r["text"] for r in entry.get("readouts", ()) if r["block"] == block), None)


# ---- blocks ----------------------------------------------------------------------------------------------------------


def _blocks(rim: Sequence[Entry], rights: Mapping[str, Sequence[bool]], depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    depths = Counter(entry["chosen"]["auto"] for entry in rim if "auto" in entry["chosen"])
    if depths:
        found["auto"] = {
            "mean_depth": sum(k * n for k, n in depths.items()) / depths.total(),
            "depths": {str(k): depths[k] for k in sorted(depths)},
        }
    n_any = sum(rights["any_block"])
    found["selections"] = {  # of the questions that some block answers, the share that the selection gets right
        name: sum(rights[key]) / n_any if n_any else None
        for name, key in (("final", f"block_{depth}"), *((key, key) for key in ("vote", "confidence", "probe")))
        if key in rights
    }
    readouts = [readout for entry in rim for readout in entry["readouts"]]
    labels = [bool(readout["correct"]) for readout in readouts]
    if readouts and all(readout.get("probe") is not None for readout in readouts):
        found["probe"] = _probe(readouts, labels, depth)
    found["signals"] = {
        name: stats.auroc([sign * r[name] for r in readouts], labels)
        for name, sign in (("confidence", 1), ("probability", 1), ("entropy", -1))
        if readouts and all(r.get(name) is not None for r in readouts)
    }
    return found


def _probe(readouts: Sequence[Entry], labels: Sequence[bool], depth: int) -> dict[str, Any]:
    scores = [float(readout["probe"]) for readout in readouts]
    blocks = []
    for block in range(1, depth + 1):
        own = [i for i, readout in enumerate(readouts) if readout["block"] == block]
        some, right = [scores[i] for i in own], [labels[i] for i in own]
        area = stats.auroc(some, right)
        error = None if area is None else stats.auroc_error(area, sum(right), len(right) - sum(right))
        blocks.append(
            {
                "block": block,
                "auroc": area,
                "standard_error": error,
                "calibration_error": stats.calibration_error(some, right),
                "mean_score": stats.mean(some),
                "right": stats.mean(right),
            }
        )
    return {
        "readouts": len(scores),
        "auroc": stats.auroc(scores, labels),
        "calibration_error": stats.calibration_error(scores, labels),
        "brier": stats.brier(scores, labels),
        "bins": [vars(item) for item in stats.calibration(scores, labels)],
        "blocks": blocks,
    }
