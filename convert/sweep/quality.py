"""The numbers out of the rows of one type: distances, agreement, accuracy, selections, probe. Shares are 0..1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rim_edge.evaluation.answers import equal
from rim_edge.evaluation.statistics import (
    auroc,
    auroc_error,
    calibration_error,
    mcnemar_exact,
    paired_interval,
    wilson_interval,
)
from rim_edge.results import Readout
from rim_edge.selection import choose

from .divergence import share, summarize
from .rows import Row

Readouts = list[dict[str, Any]]


def quality(rows: Sequence[Row], reference: Sequence[Row], suite: str | None = None) -> dict[str, Any]:
    """What ``sweep.json`` says about one type.

    Args:
        rows: of :func:`..measure.compared_rows`, or the reference's own.
        reference: the reference's rows for the same problems.
        suite: kind of the data, for comparing answers.
    """
    blocks = [readout["block"] for readout in rows[0]["readouts"]]
    is_reference = rows is reference
    result: dict[str, Any] = {
        "n_questions": len(rows),
        "n_known_answers": sum(row["answer"] is not None for row in rows),
        "readouts": [_readout(rows, reference, i, suite, is_reference) | {"block": b} for i, b in enumerate(blocks)],
    }
    shown = [i for i, block in enumerate(blocks) if block > 0] or [0]
    if not is_reference:
        result |= distances(rows, shown)
    result["answer_agreement"] = result["readouts"][-1].get("answer_agreement")
    if blocks[-1] > 0:
        for name, pick in _selections(rows).items():
            result.setdefault("selections", {})[name] = _compared(rows, reference, pick, is_reference)
        result["any_block"] = _compared(
            rows, reference, lambda readouts: _any(r["right"] for r in readouts if r["block"] > 0), is_reference
        )
        result["probe"] = _probe(rows)
    else:
        result["selections"] = {"final": result["readouts"][0]["accuracy"]}
    return result


def distances(rows: Sequence[Row], readouts: Sequence[int]) -> dict[str, Any]:
    """``kl`` and ``top_agreement`` over the tokens of some readouts (places in the row), questions as the groups."""
    kl = [[value for i in readouts for value in row["readouts"][i]["kl"]] for row in rows]
    top = [[bool(value) for i in readouts for value in row["readouts"][i]["top"]] for row in rows]
    return {"kl": summarize(kl), "top_agreement": share(top)}


def _readout(
    rows: Sequence[Row], reference: Sequence[Row], i: int, suite: str | None, is_reference: bool
) -> dict[str, Any]:
    """One readout, the ``i``-th of each row."""
    result: dict[str, Any] = {
        "accuracy": _compared(rows, reference, lambda readouts: readouts[i]["right"], is_reference)
    }
    if not is_reference:
        result |= distances(rows, [i])
        same = [
            _same(row["readouts"][i], other["readouts"][i], suite) for row, other in zip(rows, reference, strict=True)
        ]
        result["answer_agreement"] = _counted(sum(same), len(same))
    return result


def _same(mine: dict[str, Any], theirs: dict[str, Any], suite: str | None) -> bool:
    """Whether two texts give the same final answer."""
    if mine["text"] == theirs["text"]:
        return True
    return theirs["given"] is not None and equal(mine["given"], theirs["given"], suite)


def _compared(
    rows: Sequence[Row],
    reference: Sequence[Row],
    right: Callable[[Readouts], bool | None],
    is_reference: bool,
) -> dict[str, Any] | None:
    """Accuracy over the problems with a known answer, and what changed against the reference; None without any."""
    pairs = [
        (bool(right(row["readouts"])), bool(right(other["readouts"])))
        for row, other in zip(rows, reference, strict=True)
        if row["answer"] is not None
    ]
    if not pairs:
        return None
    result = _counted(sum(mine for mine, _ in pairs), len(pairs))
    if is_reference:
        return result
    lost = sum(theirs and not mine for mine, theirs in pairs)
    won = sum(mine and not theirs for mine, theirs in pairs)
    low, high = paired_interval(won, lost, len(pairs))
    return result | {
        "right_to_wrong": lost,
        "wrong_to_right": won,
        "difference": (won - lost) / len(pairs),
        "difference_low": low,
        "difference_high": high,
        "p": mcnemar_exact(won, lost),
    }


def _counted(k: int, n: int) -> dict[str, Any]:
    low, high = wilson_interval(k, n)
    return {"k": k, "n": n, "share": k / n if n else None, "low": low, "high": high}


def _any(values: Any) -> bool | None:
    values = list(values)
    return None if None in values else any(values)


def _selections(rows: Sequence[Row]) -> dict[str, Callable[[Readouts], bool | None]]:
    """Every selection that the model can do, as a function that tells whether the readout it picks is right."""
    readouts = [readout for row in rows for readout in row["readouts"] if readout["block"] > 0]
    names = ["final", "confidence"]
    if any(readout["value"] is not None for readout in readouts):
        names.append("vote")
    if all(readout["probe"] is not None for readout in readouts):
        names.append("probe")
    return {name: _picker(name) for name in names}


def _picker(name: str) -> Callable[[Readouts], bool | None]:
    def pick(readouts: Readouts) -> bool | None:
        inside = [readout for readout in readouts if readout["block"] > 0]
        known = [
            Readout(r["block"], "", 0, 0.0, 0.0, r["probe"], r["text"], r["value"], r["confidence"]) for r in inside
        ]
        right: bool | None = inside[choose(name, known)]["right"]
        return right

    return pick


def _probe(rows: Sequence[Row]) -> dict[str, Any] | None:
    """How well the probe's scores tell right readouts from wrong ones; None without a probe or known answers."""
    scored = [
        (readout["probe"], readout["right"], readout["block"])
        for row in rows
        for readout in row["readouts"]
        if readout["block"] > 0 and readout["probe"] is not None and readout["right"] is not None
    ]
    if not scored:
        return None

    def told(pairs: list[tuple[float, bool, int]]) -> dict[str, Any]:
        scores, labels = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        area, n_right = auroc(scores, labels), sum(labels)
        return {
            "n": len(pairs),
            "auroc": area,
            "auroc_se": None if area is None else auroc_error(area, n_right, len(pairs) - n_right),
            "calibration_error": calibration_error(scores, labels),
        }

    blocks = sorted({pair[2] for pair in scored})
    return told(scored) | {"blocks": [{"block": b} | told([pair for pair in scored if pair[2] == b]) for b in blocks]}
