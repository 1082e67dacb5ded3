"""Sessions and threads: cancelling, two at once, the interpreter running on, closing in the middle."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from native_session import model, session, stack, text, think

from rim_edge import _native
from rim_edge.errors import BusyError, CancelledError, ClosedError

GREEDY = _native.Sampling()
HOT = _native.Sampling(temperature=1.5, top_k=0, top_p=1.0, min_p=0.0, seed=4)
SHAPE = {"n_embd": 256, "n_layer": 6}


def big_session(**options: Any) -> _native.Session:
    """A session in which 1500 tokens take a moment."""
    return session(model(**SHAPE), **({"n_ctx": 2048} | options))


@contextmanager
def running(work: Callable[[], object]) -> Iterator[list[BaseException]]:
    """``work`` in a thread; gives the list that its exception ends up in."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield failures
    thread.join(30)
    assert not thread.is_alive()


def fresh() -> np.ndarray[Any, np.dtype[np.float32]]:
    return stack(think(big_session(), text(50)))


# ---- cancel


def test_cancel_before_work_is_sticky() -> None:
    s = big_session()
    s.cancel()
    for call in (lambda: think(s, text(50)), lambda: s.prefill(text(50))):
        with pytest.raises(CancelledError):
            call()
    s.clear_cancel()
    assert np.array_equal(stack(think(s, text(50))), fresh())
    think(s, text(50), 4)
    s.cancel()
    assert s.decode([(0, 1)], GREEDY, 5)[0].finish == "cancelled"
    with pytest.raises(CancelledError):
        s.extend(8)


@pytest.mark.parametrize("kind", ["prefill", "think", "extend"])
@pytest.mark.parametrize("delay", [0.0, 0.01, 0.05])
def test_a_cancelled_pass_leaves_no_trace(kind: str, delay: float) -> None:
    s = big_session(prefix=text(100, 3)) if kind == "extend" else big_session()
    if kind == "extend":
        s.think([text(100)], 1)
    work = {
        "prefill": lambda: s.prefill(text(1500)),
        "think": lambda: s.think([text(1500)], 8),
        "extend": lambda: s.extend(8),
    }[kind]
    with running(work) as failures:
        time.sleep(delay)
        s.cancel()
        cancelled = time.perf_counter()
    took = time.perf_counter() - cancelled
    assert not failures or isinstance(failures[0], CancelledError)
    assert took < 5
    s.clear_cancel()
    if kind == "extend":
        if failures:  # the first block is still there, and the rest can be run
            deeper = s.extend(8, logits=True)[0]
            other = big_session(prefix=text(100, 3))
            other.think([text(100)], 1)
            assert np.array_equal(stack(deeper), stack(other.extend(8, logits=True)[0]))
            answers = [o.decode([(0, 1), (0, 8)], GREEDY, 4) for o in (s, other)]
            assert [a.tokens for a in answers[0]] == [a.tokens for a in answers[1]]
        return
    if failures:
        assert s.cached() == 0
    s.reset()
    assert np.array_equal(stack(think(s, text(50))), fresh())


def test_cancelled_text_is_gone_but_what_was_there_before_stays() -> None:
    s = big_session()
    s.prefill(text(60))

    def stop(done: int, total: int) -> bool:
        return False

    with pytest.raises(CancelledError):
        s.think([text(60) + text(1000, 1)], 8, progress=stop)
    assert s.cached() == 60
    with pytest.raises(CancelledError):
        s.prefill(text(30) + text(1000, 2), progress=stop)
    assert s.cached() == 30
    think(s, text(50))
    assert (s.counts.reused, s.counts.text) == (30, 20)


def test_lanes_are_cleaned_together() -> None:
    s = big_session(n_lanes=2, n_ctx=4096)
    s.think([text(60), text(70, 1)], 2)

    def stop(done: int, total: int) -> bool:
        return done < 600

    with pytest.raises(CancelledError):
        s.think([text(60) + text(500, 2), text(70, 1) + text(500, 3)], 8, progress=stop)
    assert [s.cached(0), s.cached(1)] == [60, 70]
    again = s.think([text(60), text(70, 1)], 2, logits=True)
    assert s.counts.text == 0
    other = big_session(n_lanes=2, n_ctx=4096)
    other.think([text(60), text(70, 1)], 2)
    assert np.array_equal(stack(again[0]), stack(other.think([text(60), text(70, 1)], 2, logits=True)[0]))


def test_cancelling_an_answer_gives_what_was_said() -> None:
    s = big_session()
    think(s, text(50))
    whole = s.decode([(0, 8)], HOT, 300)[0]
    pieces: list[str] = []

    def on_text(index: int, piece: str) -> None:
        pieces.append(piece)
        if len(pieces) == 5:
            s.cancel()

    answer = s.decode([(0, 8)], HOT, 300, on_text=on_text)[0]
    assert answer.finish == "cancelled"
    assert whole.text.startswith("".join(pieces)[:4]) and answer.text == "".join(pieces)
    s.clear_cancel()
    assert s.decode([(0, 8)], HOT, 300)[0].text == whole.text
    with running(lambda: s.decode([(0, k) for k in range(1, 9)], HOT, 100_000)) as failures:
        time.sleep(0.05)
        s.cancel()
    assert not failures
    s.clear_cancel()
    think(s, text(50))
    assert s.counts.reused == 50


def test_ctrl_c_interrupts_work_in_the_main_thread() -> None:
    s = big_session()
    timer = threading.Timer(0.05, lambda: signal.raise_signal(signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        for _ in range(1000):
            s.reset()
            s.think([text(1500)], 8)
    timer.join()
    s.reset()
    assert np.array_equal(stack(think(s, text(50))), fresh())


# ---- side by side


def test_two_sessions_on_one_model_answer_as_alone() -> None:
    questions = [text(40 + i, i) for i in range(4)]

    def answers(results: list[Any], order: list[list[int]]) -> None:
        s = big_session()
        for question in order:
            readouts = stack(think(s, question))
            results.append((readouts, [a.tokens for a in s.decode([(0, 1), (0, 8)], HOT, 15)]))
            s.reset()

    alone: list[Any] = []
    answers(alone, questions)
    both: tuple[list[Any], list[Any]] = ([], [])
    with running(lambda: answers(both[0], questions)), running(lambda: answers(both[1], questions)):
        pass
    for results in both:
        for (logits, tokens), (logits_alone, tokens_alone) in zip(results, alone, strict=True):
            assert np.array_equal(logits, logits_alone)
            assert tokens == tokens_alone


def test_the_interpreter_runs_on_during_work() -> None:
    s = big_session()
    ticks = 0
    with running(lambda: s.think([text(1900)], 8)):
        end = time.perf_counter() + 0.1
        while time.perf_counter() < end:
            ticks += 1
            time.sleep(0.001)
        s.cancel()
    assert ticks > 5


def test_a_second_call_is_refused() -> None:
    s = big_session()
    started = threading.Event()
    go_on = threading.Event()

    def wait(done: int, total: int) -> None:
        started.set()
        assert go_on.wait(20)

    calls: list[Callable[[], object]] = [
        lambda: think(s, text(5)),
        lambda: s.prefill(text(5)),
        lambda: s.extend(8),
        lambda: s.decode([(0, 1)], GREEDY, 1),
        lambda: s.release(),
        lambda: s.reset(),
        lambda: s.cached(),
    ]
    with running(lambda: s.prefill(text(1500), progress=wait)) as failures:
        assert started.wait(20)
        for call in calls:
            with pytest.raises(BusyError):
                call()
        assert s.counts.passes == 0 and s.n_ctx == 2048 and not s.closed
        go_on.set()
    assert not failures
    assert s.cached() == 1500


def test_a_callback_cannot_use_its_own_session() -> None:
    s = big_session()
    think(s, text(50))
    for call in (s.close, s.reset):
        with pytest.raises(BusyError):
            s.decode([(0, 1)], GREEDY, 5, on_text=lambda i, t, call=call: call())
    assert not s.closed
    assert len(think(s, text(50))) == 8


@pytest.mark.parametrize("kind", ["prefill", "decode"])
def test_closing_stops_the_work_of_another_thread(kind: str) -> None:
    s = big_session()
    think(s, text(50))
    started = threading.Event()

    def progress(done: int, total: int) -> None:
        started.set()

    def on_text(index: int, piece: str) -> None:
        started.set()

    def work() -> None:
        if kind == "prefill":
            while True:
                s.prefill(text(1900, 1), progress=progress)
                s.prefill([])
        s.decode([(0, k) for k in range(1, 9)], HOT, 100_000, on_text=on_text)

    with running(work) as failures:
        assert started.wait(20)
        s.close()
        assert s.closed
    assert all(isinstance(failure, CancelledError | ClosedError) for failure in failures)


def test_a_session_outlives_the_handle_of_its_model() -> None:
    tiny = model(seed=77)
    s = session(tiny)
    before = stack(think(s, text(20)))
    tiny.close()
    s.reset()
    assert np.array_equal(stack(think(s, text(20))), before)
    with pytest.raises(ClosedError):
        session(tiny)
