"""What a benchmark measures: which cases there are, and what each asks and costs."""

from __future__ import annotations

from typing import Any

import pytest

from rim_edge.benchmark import plan
from rim_edge.benchmark.plan import Settings, answer_work, cases, check_room, thread_counts, with_blocks
from rim_edge.benchmark.questions import problem, question
from rim_edge.benchmark.work import steps, text_pass
from rim_edge.errors import OptionError

FACTS: dict[str, Any] = {
    "blocks": 8,
    "block_tokens": [90, 91, 91, 92],
    "prefix_tokens": [],
    "n_ctx": 480,
    "n_threads": 2,
    "n_positions": None,
}
PLAIN = FACTS | {"blocks": 0, "block_tokens": []}
QUESTIONS = [[{"text": f"q{kind}{n}", "tokens": [kind, n, 7]} for n in range(3)] for kind in range(4)]
TEXTS = [list(range(plan.TEXT))] * 3


def keys(settings: Settings, facts: dict[str, Any]) -> list[str]:
    return [case.key for case in cases(settings, facts, QUESTIONS, TEXTS)]


def test_every_way_to_answer_and_every_width_and_thread_count_is_a_case() -> None:
    found = keys(Settings("m.gguf"), FACTS)
    assert found[:4] == ["answer.direct", "answer.rim", "answer.auto", "answer.cot"]
    assert found[4:8] == ["readouts.one", "readouts.all", "second_turn.reused", "second_turn.anew"]
    assert found[8:14] == [f"prefill.{width}.{threads}" for threads in (1, 2) for width in (32, 128, 512)]
    assert found[14:] == [f"decode.{lanes}.{threads}" for threads in (1, 2) for lanes in (1, 4, 8)] + ["process"]


def test_a_plain_model_has_no_rows_with_blocks() -> None:
    found = keys(Settings("m.gguf", cot_tokens=0), PLAIN)
    assert [key for key in found if key.startswith(("answer", "readouts"))] == ["answer.direct"]
    assert "second_turn.reused" in found and "process" in found


def test_few_positions_leave_out_wide_texts() -> None:
    found = keys(Settings("m.gguf"), FACTS | {"n_positions": 130})
    assert {key for key in found if key.startswith("prefill")} == {
        f"prefill.{width}.{threads}" for threads in (1, 2) for width in (32, 128)
    }


def test_the_peer_gets_the_same_tokens_and_as_many_steps() -> None:
    found = {case.key: case for case in cases(Settings("m.gguf"), FACTS, QUESTIONS, TEXTS)}
    rim, cot = found["answer.rim"], found["answer.cot"]
    assert rim.theirs is not None and cot.theirs is not None
    assert rim.ours(1) == ("answer", {"question": "q11", "blocks": 8, "n_answer": 16, "n_thought": 0})
    assert rim.theirs(1) == ("answer", {"tokens": [1, 1, 7] + [90, 91, 91, 92] * 8, "n_answer": 16, "n_thought": 0})
    assert cot.ours(0)[1]["blocks"] == 0
    assert cot.theirs(0) == ("answer", {"tokens": [3, 0, 7], "n_answer": 16, "n_thought": 128})
    assert found["answer.auto"].theirs is None  # it has no such thing
    assert found["prefill.32.1"].theirs is None and found["prefill.32.2"].theirs is not None


def test_no_question_is_asked_twice() -> None:
    made = cases(Settings("m.gguf", rounds=2), FACTS, QUESTIONS, TEXTS)
    asked = [case.ours(n)[1]["question"] for case in made if case.group == "answers" for n in (-1, 0, 1)]
    assert len(set(asked)) == len(asked) == 12


def test_the_passes_of_an_answer() -> None:
    facts = FACTS | {"prefix_tokens": [5, 6]}
    sample = {"n_prompt": 10.0, "depth": 8.0}
    assert answer_work(FACTS, {"n_prompt": 10.0, "depth": 0.0}, 4, 0, auto=False) == {
        "ttft_ms": [text_pass(10)],
        "total_ms": [text_pass(10), steps(3, 10)],
    }
    assert answer_work(facts, sample, 1, 0, auto=False)["total_ms"] == [text_pass(10 + 32 + 16, 8)]
    assert answer_work(FACTS, sample, 1, 0, auto=True)["ttft_ms"] == [text_pass(18, 2), text_pass(24, 6, 18)]
    assert answer_work(FACTS, sample | {"depth": 2.0}, 1, 0, auto=True)["ttft_ms"] == [text_pass(18, 2)]
    thought = answer_work(FACTS, sample | {"depth": 0.0}, 4, 100, auto=False)
    assert thought == {"ttft_ms": [text_pass(10), steps(100, 10)], "total_ms": [*thought["ttft_ms"], steps(3, 110)]}


def test_blocks_and_prefix_follow_the_question() -> None:
    facts = FACTS | {"blocks": 2, "prefix_tokens": [5]}
    assert with_blocks(facts, [1]) == [1, 90, 91, 91, 92, 90, 91, 91, 92, 5]
    assert with_blocks(facts, [1], 1) == [1, 90, 91, 91, 92, 5]
    assert with_blocks(PLAIN, [1]) == [1]


def test_what_does_not_fit_is_said_before_any_work() -> None:
    check_room(Settings("m.gguf", answer_tokens=16, cot_tokens=400), FACTS, 64)
    with pytest.raises(OptionError, match=r"64 tokens of question, 401 of thought .* context of 480: choose a larger"):
        check_room(Settings("m.gguf", answer_tokens=16, cot_tokens=401), FACTS, 64)


def test_thread_counts_are_powers_of_two_and_the_last_one() -> None:
    assert [thread_counts(n) for n in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


def test_questions_are_as_long_as_wanted() -> None:
    def words(text: str) -> int:
        return len(text.split())

    for n in (10, 20, 21, 50, 400):
        found = question(n, 3, words)
        assert n - 5 < words(found) <= n
    assert question(1, 0, words) == problem(1, 0) == "Tom has 10 apples. How many apples does Tom have?"
    assert len({question(50, variant, words) for variant in range(90)}) == 90
