"""Single questions: what an answer is, options, depth, refusals."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rim_edge
from rim_edge import (
    ContextFullError,
    Model,
    OptionError,
    UnsupportedError,
    _native,
)
from tests.exact import EXACT, QUESTIONS, WORDS, greedy
from tests.shapes import default_spec, make_model


@pytest.fixture(scope="module")
def plain(folder: Path) -> Iterator[Model]:
    with rim_edge.load(make_model(folder / "plain.gguf", spec=None), **EXACT) as loaded:
        yield loaded


# ---- what an answer is --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [0, 1, 4, 8])
def test_an_answer_is_the_greedy_continuation_of_question_and_blocks(model: Model, rim_path: Path, depth: int) -> None:
    native = _native.Model(str(rim_path))
    spec = default_spec()
    tokens = native.tokenize(f"Question: {WORDS}\nAnswer:") + list(spec.block_tokens) * depth
    expected = native.detokenize(greedy(rim_path, tokens, 12)).decode("utf-8", "replace")
    answer = model.ask(WORDS, blocks=depth, max_tokens=12)
    assert answer.text == expected
    assert (answer.depth, answer.readout, answer.blocks) == (depth, depth, depth)


def test_an_answer_says_how_it_came_about(model: Model) -> None:
    answer = model.ask(WORDS, max_tokens=6)
    assert [readout.block for readout in answer.readouts] == [1, 2, 3, 4]
    assert answer.readouts[3].text == answer.text == str(answer)
    assert answer.readouts[0].text is None and answer.readouts[0].hidden is None
    assert answer.finish == "length" and answer.select == "final"
    assert all(0 < readout.probability <= 1 and readout.entropy > 0 for readout in answer.readouts)
    assert all(readout.probe is not None and 0 < readout.probe < 1 for readout in answer.readouts)
    counts = answer.tokens
    assert counts.prompt == counts.evaluated and counts.reused == 0
    assert (counts.slots, counts.prefix, counts.answer) == (16, 0, 6)
    times = answer.timings
    assert 0 < times.prefill_ms <= times.ttft_ms <= times.total_ms and times.tokens_per_s > 0


def test_the_json_form_holds_everything_but_arrays(model: Model) -> None:
    found = model.ask(WORDS, max_tokens=2, hidden=True, logits=True).to_dict()
    assert set(found) == {
        *("text", "value", "depth", "blocks", "select", "readout", "readouts"),
        *("timings", "tokens", "finish", "notices"),
    }
    assert set(found["readouts"][0]) == {
        *("block", "top_token", "top_id", "probability", "entropy", "probe", "text", "value", "confidence"),
    }


def test_the_same_question_gives_the_same_answer_whatever_was_asked_before(model: Model) -> None:
    first = model.ask(WORDS, max_tokens=8, logits=True)
    model.ask("Tom has apples", max_tokens=3)
    again = model.ask(WORDS, max_tokens=8, logits=True)
    for one, two in zip(first.readouts, again.readouts, strict=True):
        np.testing.assert_array_equal(one.logits, two.logits)


def test_hidden_states_logits_and_the_probe_belong_together(model: Model) -> None:
    answer = model.ask(WORDS, max_tokens=1, hidden=True, logits=True)
    assert model.spec is not None
    for readout in answer.readouts:
        assert readout.hidden is not None and readout.hidden.shape == (64,) and readout.hidden.dtype == np.float32
        assert readout.logits is not None and readout.logits.shape == (model.info.n_vocab,)
        assert readout.probe == pytest.approx(model.spec.probe_score(readout.block, readout.hidden))
        shifted = np.exp(readout.logits - readout.logits.max(), dtype=np.float64)
        assert readout.probability == pytest.approx(float(shifted[readout.top_id] / shifted.sum()), rel=1e-4)


def test_every_readout_can_be_decoded(model: Model) -> None:
    answer = model.ask(WORDS, max_tokens=5, readouts=True)
    for readout in answer.readouts:
        assert readout.text == model.ask(WORDS, blocks=readout.block, max_tokens=5).text
        assert readout.confidence is not None and readout.confidence <= 0


def test_the_answer_prefix_opens_every_readout(folder: Path) -> None:
    path = make_model(folder / "prefix.gguf", spec=default_spec(answer_prefix=" apples and", trained_direct=True))
    native = _native.Model(str(path))
    prompt = native.tokenize(f"Question: {WORDS}\nAnswer:")
    with rim_edge.load(path, **EXACT) as model:
        for depth in (0, 4):
            tokens = prompt + list(default_spec().block_tokens) * depth + native.tokenize(" apples and")
            expected = native.detokenize(greedy(path, tokens, 5)).decode("utf-8", "replace")
            pieces: list[str] = []
            answer = model.ask(WORDS, blocks=depth, max_tokens=5, on_text=pieces.append)
            assert answer.text == " apples and" + expected == "".join(pieces)
            assert answer.tokens.prefix == max(1, depth) * len(native.tokenize(" apples and"))


@pytest.mark.parametrize("select", ["final", "vote", "confidence", "probe"])
def test_a_selection_answers_with_one_of_the_readouts(model: Model, select: Any) -> None:
    pieces: list[str] = []
    everything = {readout.block: readout for readout in model.ask(WORDS, max_tokens=5, readouts=True).readouts}
    answer = model.ask(WORDS, max_tokens=5, select=select, on_text=pieces.append)
    assert answer.text == everything[answer.readout].text == "".join(pieces)
    assert answer.select == select
    if select == "probe":
        assert answer.readout == max(everything, key=lambda block: everything[block].probe or 0)
    if select == "confidence":
        assert answer.readout == max(everything, key=lambda block: everything[block].confidence or -9)


def test_text_streams_in_the_callers_thread(model: Model) -> None:
    heard: list[tuple[str, int]] = []
    answer = model.ask(WORDS, max_tokens=9, on_text=lambda piece: heard.append((piece, threading.get_ident())))
    assert "".join(piece for piece, _ in heard) == answer.text and len(heard) > 1
    assert {thread for _, thread in heard} == {threading.get_ident()}


def test_a_long_prompt_reports_its_progress(rim_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with rim_edge.load(rim_path, n_batch=64, **EXACT) as model:
        answer = model.ask(WORDS * 12, max_tokens=1, on_prefill=lambda done, total: seen.append((done, total)))
    assert len(seen) > 2 and seen == sorted(seen)
    assert all(total >= answer.tokens.prompt - 64 for _, total in seen)


def test_stop_texts_end_the_answer_before_them(model: Model) -> None:
    whole = model.ask(WORDS, max_tokens=20).text
    stop = whole[6:9]
    answer = model.ask(WORDS, max_tokens=20, stop=["never there", stop])
    assert answer.text == whole[: whole.index(stop)] and answer.finish == "stop"
    assert model.ask(WORDS, max_tokens=20, stop=stop).text == answer.text


def test_sampling_repeats_with_its_seed(model: Model) -> None:
    def ask(seed: int | None) -> str:
        return model.ask(WORDS, max_tokens=12, temperature=1.5, top_k=0, top_p=1.0, min_p=0.0, seed=seed).text

    assert ask(7) == ask(7)
    assert len({ask(None) for _ in range(4)}) > 1


def test_the_chosen_readout_samples_alike_with_and_without_the_others(model: Model) -> None:
    options: dict[str, Any] = {"max_tokens": 6, "temperature": 1.0, "seed": 3}
    assert model.ask(WORDS, **options).text == model.ask(WORDS, readouts=True, **options).text


# ---- depth ----------------------------------------------------------------------------------------------------------


def test_auto_stops_when_sure_and_goes_on_when_not(folder: Path) -> None:
    for bias, depth in ((9.0, 2), (-9.0, 4)):
        probe = {"probe_weight": np.zeros((8, 64), np.float32), "probe_bias": np.full(8, bias, np.float32)}
        path = make_model(folder / f"auto{depth}.gguf", spec=default_spec(**probe))
        with rim_edge.load(path, **EXACT) as model:
            auto, fixed = model.ask(WORDS, blocks="auto", max_tokens=5), model.ask(WORDS, blocks=depth, max_tokens=5)
            assert (auto.blocks, auto.depth, auto.tokens.slots) == ("auto", depth, 4 * depth)
            assert auto.text == fixed.text
            many = model.ask_many([WORDS, WORDS + " the"], blocks="auto", max_tokens=5)
            assert [answer.depth for answer in many] == [depth, depth]


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": 9}, "blocks is 9, this model runs 0 to 8"),
        ({"blocks": -1}, "blocks is -1"),
        ({"blocks": "all"}, "blocks is 'all'"),
        ({"blocks": True}, "blocks is True"),
        ({"select": "best"}, "select is 'best', expected one of final, vote, confidence, probe"),
        ({"select": "vote", "blocks": 0}, "blocks=0 has none"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": "hot"}, "temperature is 'hot'"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 0}, "top_p is 0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"min_p": -0.5}, "min_p is -0.5"),
        ({"seed": -1}, "seed is -1"),
        ({"repeat_penalty": 0}, "repeat_penalty is 0"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"stop": ["a", ""]}, "empty text"),
        ({"stop": 3}, "stop is 3"),
        ({"system": 3}, "system must be text"),
        ({"temprature": 1}, "did you mean 'temperature'"),
    ],
)
def test_wrong_options_are_named(model: Model, options: Any, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        model.ask(WORDS, **options)
    assert message in str(caught.value) and caught.value.exit_code == 2


def test_a_plain_model_answers_directly_and_says_so(plain: Model) -> None:
    assert plain.spec is None and "answers directly" in plain.notices[0]
    answer = plain.ask(WORDS, max_tokens=4)
    assert (answer.depth, answer.readout, answer.tokens.slots) == (0, 0, 0)
    assert [readout.block for readout in answer.readouts] == [0] and answer.readouts[0].text == answer.text
    for options in ({"blocks": 2}, {"blocks": "auto"}, {"select": "vote"}, {"select": "probe"}):
        with pytest.raises(UnsupportedError, match="memory-slot metadata"):
            plain.ask(WORDS, **options)  # type: ignore[arg-type]
    assert len(plain.ask_many(QUESTIONS, max_tokens=2)) == 11


def test_what_the_model_lacks_is_refused_with_the_reason(folder: Path) -> None:
    with rim_edge.load(make_model(folder / "bare.gguf"), **EXACT) as model:
        with pytest.raises(UnsupportedError, match=r"rim\.answer_pattern"):
            model.ask(WORDS, select="vote")
        with pytest.raises(UnsupportedError, match="no probe"):
            model.ask(WORDS, select="probe")
        assert "not trained to answer without" in model.ask(WORDS, blocks=0, max_tokens=1).notices[0]


def test_a_recurrent_model_refuses_blocks_and_answers_directly(folder: Path) -> None:
    with rim_edge.load(make_model(folder / "mamba.gguf", "mamba"), **EXACT) as model:
        assert "memory blocks cannot run" in model.notices[0]
        with pytest.raises(UnsupportedError, match="use blocks=0"):
            model.ask(WORDS)
        assert model.ask(WORDS, blocks=0, max_tokens=3).depth == 0


def test_a_question_longer_than_the_context_is_refused_and_the_next_one_answered(model: Model) -> None:
    with pytest.raises(ContextFullError, match="the question takes 50"):
        model.ask("x" * 5000)
    bad: Any = 3
    with pytest.raises(OptionError, match="the question is int"):
        model.ask(bad)
    assert model.ask(WORDS, max_tokens=1).tokens.answer == 1
