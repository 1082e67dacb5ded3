"""Numbers as people and models write them: currency, thousands separators, units, fractions, powers of ten."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

# A digit after a letter, a caret or an underscore is no number of its own: m2, x^2, a_1.
_NUMBER = re.compile(
    r"""(?<![\w.^])
    (?P<sign>-?)(?:[$€£¥]\s?)?(?P<inner>-?)
    (?:(?P<mixed>[0-9]{1,9})\s+(?=[0-9]+\s?/\s?[0-9]))?
    (?P<whole>[0-9]{1,3}(?:[,'\u00a0\u2009\u202f][0-9]{3})+(?![0-9])|[0-9]+)?
    (?P<point>\.[0-9]+)?
    (?(point)|(?(whole)|(?!)))
    (?:\s?/\s?(?P<below>[0-9]+)(?![0-9.]))?
    (?:(?:[eE](?P<e>[+-]?[0-9]{1,3})(?![\w.]))|\s?(?:[x*\u00d7\u00b7])\s?10\s?(?:\^|\*\*)\s?[{(]?(?P<ten>-?[0-9]{1,3})[)}]?)?
    """,
    re.VERBOSE,
)
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(-?[0-9]+)\s*\}\s*\{\s*([0-9]+)\s*\}")
_SPELLINGS = {
    "\\left": "",
    "\\right": "",
    "\\!": "",
    "{,}": ",",
    "\\,": "",
    "\\$": "$",
    "\\%": "%",
    "\\times": "*",
    "\\cdot": "*",
    "\u2212": "-",
    "\u2013": "-",
}
_MOST_DIGITS = 1000  # longer ones are not read: no answer has them, and they would take long
_UNIT = re.compile(r"[\s%°$€£¥.,;:!?)\]}]*(?:[^\W\d_]+(?:\^?[0-9])?|[\s%°/.²³$€£¥'-])*[\s.,;:!?)\]}\"]*")
_NO_UNIT = re.compile(r"[\s%°.,$]*")
_OPENING = re.compile(r"[\s([{*~≈=\"]*")


@dataclass(frozen=True)
class Number:
    """A number found in a text.

    Attributes:
        value: its exact value.
        decimals: digits after the point as written.
        start, end: where it stands in the text that was searched (after its spellings were made plain).
    """

    value: Fraction
    decimals: int
    start: int
    end: int


def plain(text: str) -> str:
    """``text`` with LaTeX's and typography's spellings of numbers made plain: ``\\frac{1}{2}`` becomes ``1/2``."""
    for spelling, written in _SPELLINGS.items():
        text = text.replace(spelling, written)
    return _LATEX_FRACTION.sub(r"\1/\2", text)


def find_numbers(text: str) -> Iterator[Number]:
    """The numbers in ``text`` (see :func:`plain`), in order."""
    for match in _NUMBER.finditer(text):
        if len(match.group()) > _MOST_DIGITS:
            continue
        whole = re.sub(r"[^0-9]", "", match["whole"] or "")
        point = (match["point"] or "")[1:]
        value = Fraction(int(whole or "0")) + (Fraction(int(point), 10 ** len(point)) if point else 0)
        if match["below"]:
            if int(match["below"]) == 0:
                continue
            value /= int(match["below"])
        value += int(match["mixed"] or "0")
        value *= Fraction(10) ** int(match["e"] or match["ten"] or "0")
        if match["sign"] or match["inner"]:
            value = -value
        yield Number(value, len(point), match.start(), match.end())


def only_number(text: str, *, units: bool = True) -> Number | None:
    """The number that ``text`` is, with a currency or, where ``units``, with a unit: ``$1,200.50``, ``18 dollars``.

    None for anything else.
    """
    text = plain(text).strip().strip("$").strip()
    opening = _OPENING.match(text)
    number = next(find_numbers(text), None)
    if number is None or opening is None or number.start != opening.end():
        return None
    return number if (_UNIT if units else _NO_UNIT).fullmatch(text, number.end) else None


def last_number(text: str) -> Number | None:
    """The last number in ``text``, None where it holds none."""
    found = list(find_numbers(plain(text)))
    return found[-1] if found else None


def written(number: Number, text: str) -> str:
    """How ``number``, found in ``text``, stands there."""
    return plain(text)[number.start : number.end].strip()


def close(given: Number, wanted: Number) -> bool:
    """Whether ``given`` is ``wanted`` up to rounding.

    Equal within a thousandth (of the wanted value where that is below 1; so 0 must be 0 exactly), or, where the wanted
    value of 1 or more is no whole number, equal to it rounded to the two or more decimals that are given.
    """
    difference, size = abs(given.value - wanted.value), abs(wanted.value)
    if difference <= Fraction(1, 1000) * min(Fraction(1), size):
        return True
    return (
        wanted.value.denominator != 1
        and size >= 1
        and given.decimals >= 2
        and difference <= Fraction(1, 2 * 10**given.decimals)
    )
