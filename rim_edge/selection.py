"""Selection: which readout becomes the answer.

- ``final``: the last block run. Chosen before decoding, so the answer streams at once.
- ``probe``: the highest probe score; the deeper block wins a tie. Chosen before decoding too.
- ``vote``: every readout is decoded; the value (``rim.answer_pattern``, group 1) that most readouts give wins. A tie
  goes to the value with the deepest readout, because later blocks are trained harder (alpha_k grows with k). Readouts
  without a value do not vote; if none has one, the last block is taken. The answer is the deepest readout of the
  winning value.
- ``confidence``: every readout is decoded; the highest mean log-probability of its tokens wins, the deeper block on a
  tie.

Values are compared as numbers where they are numbers: ``1,200``, ``1200.0`` and ``$1200`` are one value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

from rim_edge.results import Readout


def value_key(value: str) -> str:
    """``value`` in the form in which answers are compared: trimmed, and one spelling per number."""
    text = value.strip()
    try:
        number = Decimal(text.strip("$€£%").rstrip(".").replace(",", ""))
    except InvalidOperation:
        return text
    return format(number.normalize(), "f") if number.is_finite() and abs(number.adjusted()) < 50 else text


def choose(select: str, readouts: Sequence[Readout]) -> int:
    """Index of the chosen one of ``readouts``, which stand in order of their blocks.

    ``vote`` needs ``text`` and ``value``, ``confidence`` needs ``confidence``, ``probe`` needs ``probe`` of each.
    """
    indices = range(len(readouts))
    if select == "probe":
        return max(indices, key=lambda i: (readouts[i].probe or 0.0, i))
    if select == "confidence":
        return max(indices, key=lambda i: (-float("inf") if (c := readouts[i].confidence) is None else c, i))
    if select == "vote":
        return _vote(readouts)
    return len(readouts) - 1


def _vote(readouts: Sequence[Readout]) -> int:
    keys = [None if readout.value is None else value_key(readout.value) for readout in readouts]
    votes = Counter(key for key in keys if key is not None)
    if not votes:
        return len(readouts) - 1
    return max((votes[key], i) for i, key in enumerate(keys) if key is not None)[1]
