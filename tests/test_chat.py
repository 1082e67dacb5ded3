"""Chats: what a turn costs, and what stays after stopping."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import rim_edge
from rim_edge import (
    BusyError,
    CancelledError,
    Chat,
    ClosedError,
    Message,
    Model,
    OptionError,
    _native,
)
from tests.exact import EXACT, FIRST, SECOND, contents, make_endless_model, rendered
from tests.shapes import CHAT_TEMPLATE, default_spec, make_model


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = make_endless_model(tmp_path_factory.mktemp("endless") / "endless.gguf")
    with rim_edge.load(path, n_ctx=16000, **EXACT) as loaded:
        yield loaded


@pytest.fixture
def talk(endless: Model) -> Iterator[Chat]:
    with endless.chat() as opened:
        yield opened


# ---- turns --------------------------------------------------------------------------------------------------------


def test_a_chat_answers_as_ask_does_and_remembers(chat_model: Model, chat: Chat) -> None:
    pieces = list(chat.stream(FIRST))
    alone = chat_model.ask(FIRST, max_tokens=8)
    assert "".join(pieces) == alone.text and len(pieces) > 1
    assert chat.last is not None and chat.last.text == alone.text and chat.last.depth == 4
    second = chat.ask(SECOND)
    assert contents(chat) == [
        ("user", FIRST),
        ("assistant", alone.text),
        ("user", SECOND),
        ("assistant", second.text),
    ]
    assert chat.turns == 2 and chat.last is second


def test_the_second_turn_pays_for_the_new_text_alone(chat_path: Path, chat: Chat) -> None:
    native = _native.Model(str(chat_path))
    first = chat.ask(FIRST)
    before = native.tokenize(rendered(("user", FIRST)), True)
    assert (first.tokens.prompt, first.tokens.reused, first.tokens.evaluated) == (len(before), 0, len(before))
    second = chat.ask(SECOND)
    after = native.tokenize(rendered(("user", FIRST), ("assistant", first.text), ("user", SECOND)), True)
    assert after[: len(before)] == before
    assert second.tokens.prompt == len(after)
    assert second.tokens.reused == len(before)  # answer, new question and the template around them are new
    assert second.tokens.evaluated == len(after) - len(before)
    assert second.tokens.slots == 16


def test_reuse_changes_nothing_but_the_work(chat_path: Path, chat: Chat) -> None:
    first = chat.ask(FIRST, max_tokens=6)
    second = chat.ask(SECOND, max_tokens=6)
    template = rendered(("user", FIRST), ("assistant", first.text), ("user", SECOND))
    native = _native.Model(str(chat_path))
    options = _native.SessionOptions(n_ctx=1024, cache_type="f32", flash_attention="off", n_threads=1)
    tokens = native.tokenize(template, True) + list(default_spec().block_tokens) * 4
    logits = _native.batch_logits(native, tokens, options, [len(tokens) - 1])[0]
    assert int(logits.argmax()) == second.readouts[-1].top_id


def test_options_of_the_chat_hold_and_can_be_changed_per_question(chat_model: Model) -> None:
    with chat_model.chat(blocks=2, max_tokens=3, select="probe") as chat:
        assert (chat.ask(FIRST).depth, chat.ask(FIRST, blocks=8).depth, chat.ask(FIRST).depth) == (2, 8, 2)
        assert chat.last is not None and chat.last.select == "probe"
    with pytest.raises(OptionError, match="blocks is 99"):
        chat_model.chat(blocks=99)


def test_vote_streams_the_chosen_answer_in_one_piece(chat: Chat) -> None:
    pieces = list(chat.stream(FIRST, select="vote"))
    assert chat.last is not None and pieces == [chat.last.text] and chat.last.select == "vote"
    assert all(readout.text is not None for readout in chat.last.readouts)
    assert chat.ask(SECOND).text  # the larger context of the vote serves the next turn


def test_a_system_prompt_opens_every_prompt_and_survives_a_reset(chat_model: Model, chat_path: Path) -> None:
    with chat_model.chat(system="be brief", max_tokens=2) as chat:
        chat.ask(FIRST)
        assert contents(chat)[0] == ("system", "be brief")
        native = _native.Model(str(chat_path))
        prompt = native.tokenize(rendered(("system", "be brief"), ("user", FIRST)), True)
        assert chat.last is not None and chat.last.tokens.prompt == len(prompt)
        chat.reset()
        assert contents(chat) == [("system", "be brief")] and chat.last is None and chat.turns == 0
        chat.system = "be long"
        assert contents(chat) == [("system", "be long")]
        with pytest.raises(OptionError, match="system belongs to the chat"):
            chat.ask(FIRST, system="other")
        assert chat.ask(FIRST).text


def test_two_chats_in_two_threads_answer_as_alone(chat_model: Model) -> None:
    def talk(found: list[str], question: str) -> None:
        with chat_model.chat(max_tokens=10) as chat:
            found += [chat.ask(question).text, chat.ask(SECOND).text]

    alone: list[list[str]] = [[], []]
    beside: list[list[str]] = [[], []]
    for found, question in zip(alone, (FIRST, "how the"), strict=True):
        talk(found, question)
    pairs = zip(beside, (FIRST, "how the"), strict=True)
    threads = [threading.Thread(target=talk, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert beside == alone


def test_turns_stand_alone_without_a_chat_template(tmp_path: Path) -> None:
    with rim_edge.load(make_model(tmp_path / "question.gguf"), **EXACT) as model, model.chat(max_tokens=4) as chat:
        chat.ask(SECOND)
        second = chat.ask(FIRST)
        assert second.text == model.ask(FIRST, max_tokens=4).text
        assert chat.turns == 2


# ---- stopping -------------------------------------------------------------------------------------------------------


def test_cancel_keeps_the_text_so_far_and_closes_the_turn(endless: Model) -> None:
    with endless.chat() as chat, endless.chat() as undisturbed:
        pieces = []
        for piece in chat.stream(FIRST):
            pieces.append(piece)
            if len(pieces) == 4:
                threading.Thread(target=chat.cancel).start()
        assert chat.last is not None and chat.last.finish == "cancelled"
        assert chat.last.text == "".join(pieces)
        assert contents(chat) == [("user", FIRST), ("assistant", "".join(pieces))]
        # The next answer is that of a chat with the same history that was never stopped.
        undisturbed._messages = [Message("user", FIRST), Message("assistant", "".join(pieces))]
        assert chat.ask(SECOND, max_tokens=8).text == undisturbed.ask(SECOND, max_tokens=8).text


def test_closing_the_stream_keeps_what_was_handed_out(talk: Chat) -> None:
    stream = talk.stream(FIRST)
    shown = next(stream) + next(stream)
    stream.close()
    assert contents(talk) == [("user", FIRST), ("assistant", shown)]
    assert talk.last is not None and (talk.last.text, talk.last.finish) == (shown, "cancelled")
    assert list(stream) == []
    assert talk.ask(SECOND, max_tokens=8).tokens.answer == 8


def test_leaving_the_loop_and_the_with_block_closes_the_stream(talk: Chat) -> None:
    with talk.stream(FIRST) as stream:
        for piece in stream:
            first = piece
            break
    assert contents(talk) == [("user", FIRST), ("assistant", first)]
    for piece in talk.stream(SECOND):
        first = piece
        break  # nobody holds the stream any longer
    assert contents(talk)[2:] == [("user", SECOND), ("assistant", first)]


def test_a_stream_closed_before_any_text_takes_the_question_back(talk: Chat) -> None:
    talk.ask(FIRST, max_tokens=8)
    before, last = contents(talk), talk.last
    talk.stream(SECOND).close()
    assert contents(talk) == before and talk.last is last
    assert talk.ask(SECOND, max_tokens=8).text


def test_a_stream_that_ended_is_whole_though_closed(chat: Chat) -> None:
    with chat.stream(FIRST, max_tokens=2) as stream:
        text = "".join(stream)
    assert stream.answer is chat.last and contents(chat)[-1] == ("assistant", text)


def test_cancel_before_any_text_takes_the_question_back(chat_path: Path) -> None:
    with rim_edge.load(chat_path, n_batch=32, **EXACT) as model, model.chat(max_tokens=4) as chat:
        chat.ask(FIRST)
        before, last = contents(chat), chat.last
        with pytest.raises(CancelledError):
            chat.ask(FIRST * 30, on_prefill=lambda done, total: chat.cancel())
        assert contents(chat) == before and chat.last is last
        with pytest.raises(CancelledError):
            list(chat.stream(FIRST * 30, on_prefill=lambda done, total: chat.cancel()))
        assert contents(chat) == before
        chat.cancel()  # idle: nothing happens
        with model.chat(max_tokens=4) as undisturbed:
            undisturbed.ask(FIRST)
            assert chat.ask(SECOND).text == undisturbed.ask(SECOND).text


def test_an_interrupt_while_listening_stops_at_once_and_keeps_the_text(endless: Model) -> None:
    with endless.chat() as chat:
        shown: list[str] = []

        def interrupt(piece: str) -> None:
            shown.append(piece)
            if len(shown) == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            for _ in chat.stream(FIRST, on_text=interrupt):
                pass
        assert contents(chat) == [("user", FIRST), ("assistant", "".join(shown))]
        shown.clear()
        with pytest.raises(KeyboardInterrupt):
            chat.ask(SECOND, on_text=interrupt)
        assert contents(chat)[2] == ("user", SECOND) and contents(chat)[3][1].startswith("".join(shown))
        assert chat.ask(SECOND, max_tokens=2).finish == "length"


def test_an_error_takes_the_question_back(chat: Chat) -> None:
    chat.ask(FIRST)
    before = contents(chat)
    with pytest.raises(OptionError):
        chat.ask(SECOND, select="nonsense")  # type: ignore[arg-type]
    with pytest.raises(OptionError):
        chat.ask(7)  # type: ignore[arg-type]
    assert contents(chat) == before and chat.ask(SECOND).text


def test_a_second_call_is_refused_while_one_is_at_work(talk: Chat) -> None:
    stream = talk.stream(FIRST)
    next(stream)
    for call in (
        lambda: talk.ask(SECOND, max_tokens=8),
        lambda: talk.stream(SECOND),
        lambda: talk.prefill(SECOND),
        talk.reset,
        talk.undo,
        lambda: talk.regenerate(),
    ):
        with pytest.raises(BusyError, match=r"cancel\(\)"):
            call()
    stream.close()
    assert talk.ask(SECOND, max_tokens=8).text


def test_an_abandoned_stream_does_not_block_the_chat_for_ever(talk: Chat) -> None:
    stream = talk.stream(FIRST)
    next(stream)
    talk.cancel()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(BusyError):
            answer = talk.ask(SECOND, max_tokens=8)
            break
    assert answer.text and contents(talk)[2] == ("user", SECOND)
    stream.close()  # too late to change the history
    assert contents(talk)[2] == ("user", SECOND)


def test_close_stops_the_work_and_later_use_is_refused(endless: Model) -> None:
    chat = endless.chat()
    session = chat._slot
    stream = chat.stream(FIRST)
    next(stream)
    chat.close()
    chat.close()
    assert chat.closed and session._session is None
    for call in (lambda: chat.ask(FIRST), lambda: chat.prefill("a"), chat.reset, lambda: chat.drop_oldest()):
        with pytest.raises(ClosedError, match="open another one"):
            call()
    stream.close()


# ---- async ----------------------------------------------------------------------------------------------------------


def test_async_streams_and_their_cancellation(endless: Model, talk: Chat) -> None:
    async def main() -> None:
        pieces = [piece async for piece in talk.stream_async(FIRST, max_tokens=8)]
        assert "".join(pieces) == endless.ask(FIRST, max_tokens=8).text
        assert (await talk.ask_async(SECOND, max_tokens=8)).text and talk.turns == 2

        async def listen() -> None:
            async for piece in talk.stream_async(FIRST):
                shown.append(piece)

        shown: list[str] = []
        task = asyncio.create_task(listen())
        while len(shown) < 3:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert talk.turns == 3 and contents(talk)[-1][1].startswith("".join(shown))
        waiting = asyncio.create_task(talk.ask_async(FIRST))
        while talk._state != "answer":
            await asyncio.sleep(0.001)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await talk.ask_async(SECOND, max_tokens=8)).tokens.answer == 8

    asyncio.run(main())


def test_a_template_of_another_model_is_used_as_written(tmp_path: Path) -> None:
    template = CHAT_TEMPLATE.replace("assistant\n{%", "assistant\n<think>\n\n</think>\n\n{%")
    with rim_edge.load(make_model(tmp_path / "think.gguf", chat_template=template), **EXACT) as model:
        native = _native.Model(str(tmp_path / "think.gguf"))
        expected = native.tokenize(rendered(("user", FIRST)) + "<think>\n\n</think>\n\n", True)
        assert model.ask(FIRST, max_tokens=1).tokens.prompt == len(expected)
