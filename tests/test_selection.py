"""Which readout becomes the answer."""

from __future__ import annotations

import pytest

from rim_edge.results import Readout
from rim_edge.selection import choose, value_key


def readouts(*fields: dict[str, object]) -> list[Readout]:
    return [Readout(k, " x", 1, 0.5, 1.0, **values) for k, values in enumerate(fields, 1)]  # type: ignore[arg-type]


def values(*texts: str | None) -> list[Readout]:
    return readouts(*({"value": text, "text": text} for text in texts))


def test_final_is_the_last() -> None:
    assert choose("final", values("1", "2", "3")) == 2


def test_vote_takes_the_value_of_the_most() -> None:
    assert choose("vote", values("7", "7", "8")) == 1


def test_vote_takes_the_deepest_readout_of_the_winner() -> None:
    assert choose("vote", values("7", "8", "7", "9")) == 2


def test_vote_gives_a_tie_to_the_deeper_value() -> None:
    assert choose("vote", values("7", "8", "7", "8")) == 3
    assert choose("vote", values("7", "8", "8", "7")) == 3


def test_vote_ignores_readouts_without_a_value() -> None:
    assert choose("vote", values(None, "8", None, None)) == 1
    assert choose("vote", values(None, None)) == 1


def test_vote_compares_numbers_as_numbers() -> None:
    assert choose("vote", values("1,200", "$1200.00", "7", "8", "8.5")) == 1


def test_confidence_takes_the_surest_and_the_deeper_of_equals() -> None:
    assert choose("confidence", readouts(*({"confidence": c} for c in (-0.5, -0.1, -0.1, -2.0)))) == 2


def test_probe_takes_the_highest_score_and_the_deeper_of_equals() -> None:
    assert choose("probe", readouts(*({"probe": p} for p in (0.9, 0.2, 0.9, 0.1)))) == 2


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (" 12 ", "12"),
        ("12.0", "12"),
        ("12.", "12"),
        ("-0.50", "-0.5"),
        ("1,234,567", "1234567"),
        ("100", "100"),
        ("50%", "50"),
        ("NaN", "NaN"),
        ("1e999999", "1e999999"),
        ("blue", "blue"),
        ("", ""),
    ],
)
def test_values_have_one_spelling(text: str, key: str) -> None:
    assert value_key(text) == key
