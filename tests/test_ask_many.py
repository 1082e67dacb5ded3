"""Many questions: the answers of one by one, in order, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rim_edge
from rim_edge import (
    CancelledError,
    ContextFullError,
    Model,
    OptionError,
)
from tests.exact import EXACT, QUESTIONS, WORDS

# ---- many questions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"blocks": 0}, {"select": "vote"}, {"select": "probe"}, {"readouts": True}])
def test_many_answers_are_those_of_one_by_one(model: Model, options: dict[str, Any]) -> None:
    alone = [model.ask(question, max_tokens=6, **options) for question in QUESTIONS]
    seen: list[tuple[int, int]] = []
    many = model.ask_many(QUESTIONS, batch=4, max_tokens=6, progress=lambda done, n: seen.append((done, n)), **options)
    assert [answer.text for answer in many] == [answer.text for answer in alone]
    assert [answer.readout for answer in many] == [answer.readout for answer in alone]
    assert [answer.tokens for answer in many] == [answer.tokens for answer in alone]
    for one, two in zip(alone, many, strict=True):
        for left, right in zip(one.readouts, two.readouts, strict=True):
            assert left.text == right.text and left.top_id == right.top_id
            assert left.entropy == pytest.approx(right.entropy, abs=1e-4)
    assert seen == [(4, 11), (8, 11), (11, 11)]


def test_long_answers_get_the_room_that_they_have_alone(rim_path: Path) -> None:
    with rim_edge.load(rim_path, n_ctx=1000, **EXACT) as model:
        questions = QUESTIONS[:2]
        alone = [model.ask(question) for question in questions]
        assert [answer.text for answer in model.ask_many(questions, batch=2)] == [answer.text for answer in alone]
        assert any(len(answer.text) > 500 for answer in alone)


def test_every_readout_gets_the_room_that_it_has_alone(rim_path: Path) -> None:
    with rim_edge.load(rim_path, n_ctx=300, **EXACT) as model:
        alone = model.ask(WORDS, readouts=True)
        for batch in (1, 2):
            (many,) = model.ask_many([WORDS], readouts=True, batch=batch)
            assert [readout.text for readout in many.readouts] == [readout.text for readout in alone.readouts]


def test_answers_come_as_their_batch_is_done(model: Model) -> None:
    answers = model.iter_many(QUESTIONS, batch=3, max_tokens=2)
    first = next(answers)
    assert first.text == model.ask(QUESTIONS[0], max_tokens=2).text
    assert len(list(answers)) == len(QUESTIONS) - 1
    assert model.ask_many([]) == []


def test_a_bad_question_among_many_is_named_before_any_work(model: Model) -> None:
    seen: list[int] = []
    with pytest.raises(ContextFullError, match="question 3 takes") as caught:
        model.ask_many([*QUESTIONS[:3], "x" * 5000], progress=lambda done, n: seen.append(done))
    assert caught.value.needed > caught.value.available and seen == []
    bad: Any = [*QUESTIONS[:2], None]
    with pytest.raises(OptionError, match="question 2 is NoneType"):
        model.ask_many(bad)
    with pytest.raises(OptionError, match="on_text"):
        model.ask_many(QUESTIONS, on_text=print)
    with pytest.raises(OptionError, match="batch is 33, expected a whole number, 1 to 32"):
        model.ask_many(QUESTIONS, batch=33)


def test_progress_can_stop_many(model: Model) -> None:
    with pytest.raises(CancelledError, match="after 2 of 11"):
        model.ask_many(QUESTIONS, batch=2, max_tokens=1, progress=lambda done, n: False)
    assert len(model.ask_many(QUESTIONS, max_tokens=1)) == 11


def test_lanes_stop_at_their_own_depth(model: Model) -> None:
    alone = [model.ask(question, blocks="auto", max_tokens=4) for question in QUESTIONS]
    many = model.ask_many(QUESTIONS, blocks="auto", max_tokens=4, batch=4)
    assert [answer.depth for answer in many] == [answer.depth for answer in alone]
    assert [answer.text for answer in many] == [answer.text for answer in alone]
