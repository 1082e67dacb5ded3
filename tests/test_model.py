"""Models: loading, context sizes, threads, cancelling, closing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rim_edge
from rim_edge import (
    BusyError,
    CancelledError,
    ClosedError,
    ContextFullError,
    Model,
    ModelFileError,
    OptionError,
    SpecError,
)
from rim_edge.model import BUNDLED
from tests.exact import EXACT, QUESTIONS, WORDS, make_endless_model
from tests.process_memory import resident_bytes
from tests.shapes import make_model, token_id


@pytest.fixture(scope="module")
def endless(folder: Path) -> Iterator[Model]:
    with rim_edge.load(make_endless_model(folder / "endless.gguf"), n_ctx=16000, **EXACT) as loaded:
        yield loaded


# ---- context sizes --------------------------------------------------------------------------------------------------


def test_blocks_do_not_eat_the_context(rim_path: Path) -> None:
    with rim_edge.load(rim_path, n_ctx=64, **EXACT) as model:
        n_prompt = model.ask("Tom", max_tokens=1).tokens.prompt
        answer = model.ask("Tom" + "x" * (63 - n_prompt))
        assert (answer.tokens.prompt, answer.tokens.answer, answer.finish) == (63, 1, "context")
        with pytest.raises(ContextFullError):
            model.ask("Tom" + "x" * (64 - n_prompt))
        everything = model.ask("Tom", blocks=8, readouts=True)
        assert everything.tokens.prompt + everything.tokens.answer <= 64
        assert all(readout.text for readout in everything.readouts)


def test_the_default_context_is_bounded(folder: Path, rim_path: Path) -> None:
    with rim_edge.load(make_model(folder / "long.gguf", n_ctx=100_000), **EXACT) as model:
        assert model.n_ctx == 4096
    with rim_edge.load(rim_path, **EXACT) as model:
        assert model.n_ctx == 2048 - 8 * 4
    with rim_edge.load(rim_path, n_ctx=3000, **EXACT) as model:
        assert model.n_ctx == 3000 and "trained for 2048" in model.notices[0]


def test_learned_positions_are_a_hard_limit(folder: Path) -> None:
    path = make_model(folder / "gpt2.gguf", "gpt2", n_ctx=64)
    with pytest.raises(OptionError, match="positions for 32 tokens"):
        rim_edge.load(path, n_ctx=64)
    with rim_edge.load(path, **EXACT) as model:
        answer = model.ask("a", blocks=8)
        assert model.n_ctx == 32 and answer.tokens.prompt + answer.tokens.answer <= 32
        assert model.ask("a", blocks=8, readouts=True).text == answer.text


# ---- threads, cancelling, closing -----------------------------------------------------------------------------------


def test_threads_get_the_answers_of_one_thread(model: Model) -> None:
    expected = [model.ask(question, max_tokens=6).text for question in QUESTIONS]
    found: dict[int, str] = {}

    def ask(index: int) -> None:
        found[index] = model.ask(QUESTIONS[index], max_tokens=6).text

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(QUESTIONS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[index] for index in range(len(QUESTIONS))] == expected


def test_cancel_from_another_thread_keeps_the_text_so_far(endless: Model) -> None:
    before = endless.ask(WORDS, max_tokens=40)
    pieces: list[str] = []

    def hear(piece: str) -> None:
        pieces.append(piece)
        if len(pieces) == 5:
            threading.Thread(target=endless.cancel).start()

    answer = endless.ask(WORDS, on_text=hear)
    assert answer.finish == "cancelled" and answer.text == "".join(pieces)
    assert before.text.startswith(answer.text[:20])
    after = endless.ask(WORDS, max_tokens=40)
    assert after.text == before.text and after.finish == before.finish
    endless.cancel()  # idle: nothing happens
    assert endless.ask(WORDS, max_tokens=40).text == before.text


def test_an_exception_in_a_callback_stops_the_work_and_comes_out(endless: Model) -> None:
    def fail(_: str) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        endless.ask(WORDS, on_text=fail)
    assert endless.ask(WORDS, max_tokens=2).tokens.answer == 2


def test_asking_from_a_callback_is_refused(endless: Model) -> None:
    with pytest.raises(BusyError, match="callback"):
        endless.ask(WORDS, on_text=lambda _: [endless.ask(WORDS)].clear())
    with pytest.raises(BusyError, match="callback"):
        endless.ask(WORDS, on_text=lambda _: endless.close())
    assert not endless.closed


def test_close_stops_the_work_and_frees_the_model(folder: Path) -> None:
    model = rim_edge.load(make_endless_model(folder / "closed.gguf"), n_ctx=16000, **EXACT)
    chat = model.chat()
    native = model._backend._model  # type: ignore[attr-defined]
    started, outcome = threading.Event(), []

    def ask() -> None:
        try:
            outcome.append(model.ask(WORDS, on_text=lambda _: started.set()).finish)
        except rim_edge.RimError as error:
            outcome.append(type(error).__name__)

    thread = threading.Thread(target=ask)
    thread.start()
    assert started.wait(30)
    model.close()
    thread.join(30)
    assert outcome == ["cancelled"]
    assert native.closed and chat.closed and model.closed
    model.close()
    with pytest.raises(ClosedError, match="load it again"):
        model.ask(WORDS)
    with pytest.raises(ClosedError):
        model.chat()
    with pytest.raises(ClosedError):
        chat.ask(WORDS)


def test_close_frees_the_memory_at_once(folder: Path) -> None:
    path = make_model(folder / "large.gguf", n_embd=1024, n_layer=4, n_head=8, n_head_kv=8)
    before = resident_bytes()
    model = rim_edge.load(path, use_mmap=False, **EXACT)
    chat = model.chat()
    chat.ask("a", max_tokens=1)
    loaded = resident_bytes()
    model.close()
    held = resident_bytes() - before
    assert held <= (loaded - before) / 4


def test_async_answers_and_their_cancellation(endless: Model) -> None:
    async def main() -> None:
        one, two = await asyncio.gather(
            endless.ask_async(WORDS, max_tokens=4), endless.ask_many_async(QUESTIONS, max_tokens=2)
        )
        assert one.text == endless.ask(WORDS, max_tokens=4).text and len(two) == 11
        started = threading.Event()
        task = asyncio.create_task(endless.ask_async(WORDS, on_text=lambda _: started.set()))
        waiting = asyncio.create_task(endless.ask_async(WORDS, max_tokens=3))
        while not started.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await waiting).tokens.answer == 3  # only the cancelled one was stopped

    asyncio.run(main())


# ---- loading --------------------------------------------------------------------------------------------------------


def test_loading_reports_its_progress_and_can_be_stopped(rim_path: Path) -> None:
    seen: list[float] = []
    rim_edge.load(rim_path, progress=seen.append, use_mmap=False).close()
    assert seen == sorted(seen) and seen[-1] == 1.0
    with pytest.raises(CancelledError):
        rim_edge.load(rim_path, progress=lambda _: False)

    def fail(_: float) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        rim_edge.load(rim_path, progress=fail)


def test_wrong_metadata_is_found_before_the_weights_are_loaded(folder: Path) -> None:
    seen: list[float] = []
    for name, metadata, message in (
        ("range", {"rim.token.end_id": 99_999}, "the vocabulary has"),
        ("normal", {"rim.token.end_id": 5}, "not of the type CONTROL"),
        ("equal", {"rim.token.end_id": token_id("<|rim_begin|>")}, "must differ"),
        ("newer", {"rim.version": 2}, "upgrade rim-edge"),
    ):
        path = make_model(folder / f"bad-{name}.gguf", metadata=metadata)
        with pytest.raises(SpecError, match=message) as caught:
            rim_edge.load(path, progress=seen.append)
        assert str(path) in str(caught.value)
    assert seen == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_ctx": 0}, "n_ctx is 0"),
        ({"n_threads": 0}, "n_threads is 0"),
        ({"n_gpu_layers": -2}, "n_gpu_layers is -2"),
        ({"n_batch": "many"}, "n_batch is 'many'"),
        ({"cache_type": "q3"}, "cache_type is 'q3', expected one of f32, f16"),
        ({"flash_attention": "maybe"}, "flash_attention is 'maybe'"),
    ],
)
def test_wrong_load_options_are_named(rim_path: Path, options: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message.replace("(", r"\(")):
        rim_edge.load(rim_path, **options)


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "page.gguf").write_text("<!DOCTYPE html><html>not found</html>")
    for path, message in (
        (tmp_path / "none.gguf", "no such file"),
        (tmp_path, "is a directory"),
        (tmp_path / "page.gguf", "not a GGUF file"),
    ):
        with pytest.raises(ModelFileError, match=message) as caught:
            rim_edge.load(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


# ---- the bundled model ----------------------------------------------------------------------------------------------


def test_the_bundled_model_answers_and_knows_its_words() -> None:
    with rim_edge.load() as model:
        assert model.spec is not None and model.spec.closed_vocabulary
        answer = model.ask("Tom has 5 apples and buys 3 more. How many apples does Tom have?")
        assert answer.notices == () and answer.value is not None and answer.value.lstrip("-").isdigit()
        stranger = model.ask("Tom has 5 zorglubs. How many zorglubs does Tom have?")
        assert "'zorglubs'" in stranger.notices[0]
    assert BUNDLED.stat().st_size <= 8_000_000


def test_the_bundled_model_talks_and_remarks_on_strange_words() -> None:
    with rim_edge.load() as model, model.chat() as chat:
        text = "".join(chat.stream("Tom has 5 zorglubs. How many zorglubs does Tom have?"))
        assert chat.last is not None and chat.last.text == text and "'zorglubs'" in chat.last.notices[-1]
