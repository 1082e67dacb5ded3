"""Which types are worth their bytes and milliseconds: the Pareto front, and a recommendation in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Entry = dict[str, Any]
_POINT = 0.01


def size_of(entry: Entry) -> float | None:
    """Bytes of the file."""
    return float(entry["file"]["size_bytes"])


def ttft_of(entry: Entry) -> float | None:
    """Median time to the first answer token in ms: after the memory blocks, direct where there are none."""
    speed = entry.get("speed") or {}
    found = speed.get("ttft_rim_ms") or speed.get("ttft_direct_ms")
    return found["median"] if found else None


def divergence_of(entry: Entry) -> float | None:
    """Mean divergence from the reference in nats, 0 for the reference itself."""
    if entry["reference"]:
        return 0.0
    mean = entry["quality"]["kl"].get("mean")
    return None if mean is None else float(mean)


def accuracy_of(entry: Entry) -> float | None:
    """Share of problems that the last readout solves; None without known answers."""
    final = entry["quality"]["selections"]["final"]
    return None if final is None else float(final["share"])


def loss_of(entry: Entry) -> float | None:
    """What is lost against the reference, 0..1: accuracy; without known answers, answers that are not the same."""
    if entry["reference"]:
        return 0.0
    final = entry["quality"]["selections"]["final"]
    if final is not None:
        return -float(final["difference"])
    agreement = entry["quality"]["answer_agreement"]
    return None if agreement is None else 1.0 - float(agreement["share"])


def front(
    entries: Sequence[Entry], cost: Callable[[Entry], float | None], loss: Callable[[Entry], float | None]
) -> list[str]:
    """Types that no other one beats in both: as cheap and better, or cheaper and as good. Cheapest first."""
    known = [
        (price, bad, entry["type"])
        for entry in entries
        if (price := cost(entry)) is not None and (bad := loss(entry)) is not None
    ]
    found, best = [], float("inf")
    for _, bad, name in sorted(known, key=lambda item: item[:2]):
        if bad < best:
            found.append(name)
            best = bad
    return found


def recommend(entries: Sequence[Entry]) -> dict[str, Any]:
    """``smallest`` and ``fastest`` type that loses less than a point, ``fastest_of_all``, and a ``sentence``."""
    good = [entry for entry in entries if (loss := loss_of(entry)) is not None and loss < _POINT]
    smallest = min(good, key=lambda entry: size_of(entry) or 0.0, default=None)
    timed = [entry for entry in entries if ttft_of(entry) is not None]
    fastest = min((e for e in good if e in timed), key=lambda entry: ttft_of(entry) or 0.0, default=None)
    of_all = min(timed, key=lambda entry: ttft_of(entry) or 0.0, default=None)
    result: dict[str, Any] = {
        name: None if entry is None else entry["type"]
        for name, entry in (("smallest", smallest), ("fastest", fastest), ("fastest_of_all", of_all))
    }
    return result | {"sentence": _sentence(smallest, fastest, of_all)}


def _sentence(smallest: Entry | None, fastest: Entry | None, of_all: Entry | None) -> str:
    if smallest is None:
        return "No type was compared with the reference."
    parts = [
        f"{smallest['type']} ({_size(smallest)}) is the smallest file that loses less than 1 point{_loss(smallest)}"
    ]
    if fastest is not None:
        what = "the fastest of these to the first token"
        if of_all is not None and of_all is fastest:
            what = "the fastest to the first token"
        if fastest is smallest:
            parts[0] += f", and {what} ({ttft_of(fastest):.1f} ms)"
        else:
            parts.append(f"{fastest['type']} is {what} ({ttft_of(fastest):.1f} ms against {ttft_of(smallest):.1f} ms)")
        if of_all is not None and of_all is not fastest:
            parts.append(f"{of_all['type']} is faster still ({ttft_of(of_all):.1f} ms) but loses more{_loss(of_all)}")
    return "; ".join(parts) + "."


def _loss(entry: Entry) -> str:
    if entry["reference"]:
        return ""
    final = entry["quality"]["selections"]["final"]
    if final is None:
        agreement = entry["quality"]["answer_agreement"]
        return f" ({100 * agreement['share']:.1f} % of {agreement['n']} answers are the same)"
    low, high = 100 * final["difference_low"], 100 * final["difference_high"]
    lost, won = final["right_to_wrong"], final["wrong_to_right"]
    same = entry["quality"]["answer_agreement"]["share"]
    return (
        f" ({100 * final['difference']:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}; of {final['n']} answers "
        f"{lost} became wrong and {won} right; {100 * same:.0f} % of all answers stayed the same)"
    )


def _size(entry: Entry) -> str:
    return f"{entry['file']['size_bytes'] / 1e6:,.1f} MB"
