"""Answers: samplers, parallel decoding, text streaming, stop strings, every way to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from native_session import BLOCK, EXACT, MEMORY_IDS, block_ends, greedy, model, reference, session, stack, text, think
from shapes import TOKEN_TYPES, make_model, token_id

from rim_edge import _native
from rim_edge.errors import OptionError

GREEDY = _native.Sampling()
HOT: dict[str, Any] = {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


def sampling(**options: Any) -> _native.Sampling:
    return _native.Sampling(**options)


def ready(depth: int = 8, seed: int = 0, **options: Any) -> _native.Session:
    """A session that has thought about a question."""
    s = session(model(seed=seed), **(EXACT | options))
    think(s, text(20), depth)
    return s


class Pieces:
    """Collects what a text callback gets."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, str]] = []

    def __call__(self, index: int, piece: str) -> None:
        self.seen.append((index, piece))

    def text(self, index: int = 0) -> str:
        return "".join(piece for i, piece in self.seen if i == index)


# ---- which tokens


def test_all_readouts_in_parallel_answer_as_each_alone() -> None:
    s = ready()
    together = s.decode([(0, k) for k in range(1, 9)], GREEDY, 12)
    for answer in together:
        alone = s.decode([(0, answer.block)], GREEDY, 12)[0]
        assert answer.tokens == alone.tokens == greedy(model(), text(20) + BLOCK * answer.block, 12)
        assert answer.text == alone.text
        assert np.allclose(answer.logprobs, alone.logprobs, atol=1e-4)


def test_decoding_leaves_nothing_behind() -> None:
    s = ready()
    before = s.decode([(0, 3)], GREEDY, 8)[0]
    s.decode([(0, k) for k in range(1, 9)], sampling(seed=1, **HOT), 30)
    again = s.decode([(0, 3)], GREEDY, 8)[0]
    assert (again.tokens, again.logprobs) == (before.tokens, before.logprobs)
    think(s, text(25))
    assert (s.counts.reused, s.counts.text) == (20, 5)
    assert s.cached() == 25


def test_logprobs_are_those_of_the_raw_softmax() -> None:
    s = ready()
    for options in (GREEDY, sampling(seed=5, **HOT)):
        answer = s.decode([(0, 2)], options, 6)[0]
        tokens = text(20) + BLOCK * 2
        for i, logprob in enumerate(answer.logprobs):
            so_far = tokens + answer.tokens[:i]
            logits = reference(model(), so_far, [len(so_far) - 1], **EXACT)[0].astype(np.float64)
            token = answer.tokens[i] if i < len(answer.tokens) else token_id("<|endoftext|>")
            expected = logits[token] - logits.max() - np.log(np.exp(logits - logits.max()).sum())
            assert logprob == pytest.approx(expected, abs=1e-3)


def test_control_tokens_are_never_sampled() -> None:
    seen: set[int] = set()
    for seed in range(12):
        s = ready(seed=seed)
        for answer in s.decode(
            [(0, k) for k in range(1, 9)], sampling(seed=seed, temperature=50.0, top_k=0, top_p=1.0, min_p=0.0), 40
        ):
            seen.update(answer.tokens)
    assert len(seen) > 200
    assert not seen & MEMORY_IDS
    assert not seen & set(model().control_ids)


def test_placeholder_rows_are_never_sampled(tmp_path: Path) -> None:
    usual = set(ready().decode([(0, 8)], GREEDY, 20)[0].tokens)
    types = [5 if token in usual else kind for token, kind in enumerate(TOKEN_TYPES)]  # LLAMA_TOKEN_TYPE_UNUSED
    path = make_model(tmp_path / "unused.gguf", metadata={"tokenizer.ggml.token_type": types})
    s = session(_native.Model(str(path)), **EXACT)
    think(s, text(20), 8)
    tokens = s.decode([(0, 8)], GREEDY, 20)[0].tokens
    assert tokens and not usual & set(tokens)


def test_seeds_decide() -> None:
    s = ready()
    targets = [(0, 4), (0, 8)]
    first = [a.tokens for a in s.decode(targets, sampling(seed=7, **HOT), 10)]
    assert [a.tokens for a in s.decode(targets, sampling(seed=7, **HOT), 10)] == first
    assert [a.tokens for a in s.decode(targets, sampling(seed=8, **HOT), 10)] != first
    assert s.decode([(0, 8)], sampling(seed=8, **HOT), 10)[0].tokens == first[1]  # target i draws with seed + i
    assert s.decode([(0, 4)], sampling(**HOT), 10)[0].tokens != s.decode([(0, 4)], sampling(**HOT), 10)[0].tokens


def test_samplers_narrow_the_choice() -> None:
    s = ready()
    best = s.decode([(0, 8)], GREEDY, 8)[0].tokens
    for options in ({"top_k": 1}, {"top_p": 0.0}, {"min_p": 1.0}):
        narrow = {"temperature": 5.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 3} | options
        assert s.decode([(0, 8)], sampling(**narrow), 8)[0].tokens == best


def test_penalty_avoids_what_was_said_and_what_was_asked() -> None:
    s = ready()
    plain = s.decode([(0, 8)], GREEDY, 40)[0].tokens
    strong = s.decode([(0, 8)], sampling(repeat_penalty=100.0, repeat_last_n=-1), 40)[0].tokens
    assert len(set(strong)) == len(strong) > len(set(plain))
    assert not set(strong) & set(text(20))
    assert s.decode([(0, 8)], sampling(repeat_penalty=100.0, repeat_last_n=0), 40)[0].tokens == plain


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": float("nan")},
        {"top_p": 1.5},
        {"top_p": float("nan")},
        {"min_p": -0.1},
        {"repeat_penalty": 0.0},
        {"repeat_last_n": -2},
    ],
)
def test_values_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        ready().decode([(0, 8)], sampling(**options), 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([(0, 9)], GREEDY, 5), "block 9"),
        (([(1, 1)], GREEDY, 5), "lane 1"),
        (([(0, 1), (0, 1)], GREEDY, 5), "twice"),
        (([(0, 1)], GREEDY, -1), "max_tokens"),
        (([(0, 1)], GREEDY, 5, [""]), "stop string"),
    ],
)
def test_wrong_use_is_named(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ready().decode(*arguments)


def test_only_blocks_that_were_read_can_be_decoded() -> None:
    s = session(model())
    s.think([text(9)], 8, all_readouts=False)
    assert len(s.decode([(0, 8)], GREEDY, 2)) == 1
    with pytest.raises(OptionError, match="block 7"):
        s.decode([(0, 7)], GREEDY, 2)
    s.release()
    with pytest.raises(OptionError, match="think"):
        s.decode([(0, 8)], GREEDY, 2)


# ---- how it ends


def test_length() -> None:
    s = ready()
    for n in (0, 1, 5):
        pieces = Pieces()
        answer = s.decode([(0, 8)], GREEDY, n, on_text=pieces)[0]
        assert answer.finish == "length" and len(answer.tokens) == len(answer.logprobs) == n
        assert pieces.text() == answer.text


def test_end_of_generation_is_no_part_of_the_answer() -> None:
    ended = 0
    for seed in range(10):
        for answer in ready(seed=seed).decode([(0, k) for k in range(1, 9)], sampling(seed=seed, **HOT), 120):
            if answer.finish == "stop":
                ended += 1
                assert len(answer.logprobs) == len(answer.tokens) + 1
                assert token_id("<|endoftext|>") not in answer.tokens
    assert ended > 0


def test_no_room_ends_the_answer() -> None:
    s = ready(n_ctx=256)
    answers = s.decode([(0, k) for k in range(1, 9)], sampling(seed=2, **HOT), 1000)
    assert "context" in {answer.finish for answer in answers}
    assert 20 + 32 + sum(len(a.tokens) - (a.finish == "context") for a in answers) <= 256
    assert len(think(s, text(20))) == 8


def test_a_callback_can_stop_its_own_answer() -> None:
    s = ready()
    pieces = Pieces()

    def on_text(index: int, piece: str) -> bool | None:
        pieces(index, piece)
        return False if index == 1 and sum(i == 1 for i, _ in pieces.seen) == 3 else None

    answers = s.decode([(0, 2), (0, 5)], sampling(seed=1, **HOT), 20, on_text=on_text)
    assert answers[0].finish in ("length", "stop") and answers[1].finish == "callback"
    assert answers[1].text == pieces.text(1)
    assert answers[0].text == pieces.text(0)


def test_an_exception_in_a_callback_is_raised_and_leaves_the_session_usable() -> None:
    s = ready()
    expected = s.decode([(0, 2)], GREEDY, 5)[0].tokens

    def on_text(index: int, piece: str) -> None:
        raise ZeroDivisionError(piece)

    with pytest.raises(ZeroDivisionError):
        s.decode([(0, 2), (0, 5)], GREEDY, 5, on_text=on_text)
    assert s.decode([(0, 2)], GREEDY, 5)[0].tokens == expected


# ---- text


def test_text_comes_in_whole_characters() -> None:
    for seed in range(5):
        s = ready(seed=seed)
        pieces = Pieces()
        answers = s.decode([(0, k) for k in range(1, 9)], sampling(seed=seed, **HOT), 40, on_text=pieces)
        for i, answer in enumerate(answers):
            raw = b"".join(model(seed=seed).token_piece(token) for token in answer.tokens)
            assert answer.text == pieces.text(i) == raw.decode("utf-8", "replace")
        assert all(piece for _, piece in pieces.seen)


def test_stop_strings_never_leak() -> None:
    s = ready()
    tried = 0
    for seed in range(12):
        options = sampling(seed=seed, **HOT)
        full = s.decode([(0, 8)], options, 60)[0].text
        if len(full) < 15:
            continue
        tried += 1
        for start, length in ((5, 1), (8, 2), (11, 4)):
            stop = full[start : start + length]
            pieces = Pieces()
            answer = s.decode([(0, 8)], options, 60, [stop, "never said"], pieces)[0]
            assert answer.finish == "stop"
            assert answer.text == full[: full.index(stop)] == pieces.text()
    assert tried > 3


def test_the_start_of_a_stop_string_comes_out_when_it_is_none() -> None:
    s = ready()
    options = sampling(seed=1, **HOT)
    full = s.decode([(0, 8)], options, 30)[0]
    stop = full.text[-3:] + "and more"
    pieces = Pieces()
    answer = s.decode([(0, 8)], options, 30, [stop], pieces)[0]
    assert answer.text == full.text == pieces.text()
    assert answer.finish == full.finish


def test_raw_logits_are_those_of_a_plain_run_after_decoding_too() -> None:
    s = ready()
    s.decode([(0, 1)], GREEDY, 4)
    plain = reference(model(), text(20) + BLOCK * 8, block_ends(20, 8), **EXACT)
    s.reset()
    assert np.array_equal(stack(think(s, text(20))), plain)


# ---- answers of a given length, to measure


def test_an_answer_that_ignores_its_end_goes_on_as_any_text_would() -> None:
    s = ready()
    ended = s.decode([(0, 8)], sampling(seed=3, **HOT), 200)[0]
    full = s.decode([(0, 8)], sampling(ignore_end=True, seed=3, **HOT), 200)[0]
    assert ended.finish == "stop" and full.finish == "length" and len(full.tokens) == 200
    assert full.tokens[: len(ended.tokens)] == ended.tokens
    assert model().is_eog(full.tokens[len(ended.tokens)])


def test_every_sampled_token_has_its_time() -> None:
    s = ready()
    for answer in s.decode([(0, k) for k in range(1, 9)], sampling(seed=3, **HOT), 20):
        assert len(answer.seconds) == len(answer.logprobs)
        assert all(0 <= a <= b for a, b in zip(answer.seconds, answer.seconds[1:], strict=False))
