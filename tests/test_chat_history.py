"""Chats: typing ahead, taking back, dropping, saving and loading."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import rim_edge
from rim_edge import (
    Chat,
    ContextFullError,
    Message,
    Model,
    OptionError,
)
from tests.exact import EXACT, FIRST, SECOND, contents

# ---- typing ahead ---------------------------------------------------------------------------------------------------


def test_what_was_typed_ahead_is_not_evaluated_again(chat_model: Model, chat: Chat) -> None:
    counts = chat.prefill("Tom has 2 apples and")
    assert counts.evaluated == counts.prompt > 8 and counts.reused == 0
    more = chat.prefill(FIRST)
    assert more.reused >= counts.prompt - 4 and more.evaluated < counts.evaluated
    answer = chat.ask(FIRST)
    assert answer.tokens.reused == more.prompt
    assert answer.tokens.evaluated == answer.tokens.prompt - more.prompt
    assert answer.text == chat_model.ask(FIRST, max_tokens=8).text


def test_a_wrong_guess_costs_nothing_but_the_work(chat_model: Model, chat: Chat) -> None:
    chat.prefill("something else entirely")
    assert chat.ask(FIRST).text == chat_model.ask(FIRST, max_tokens=8).text
    assert chat.prefill("x" * 9000).prompt == 0  # does not fit: not tried
    assert chat.messages[0] == Message("user", FIRST)


def test_a_question_waits_for_the_prefill_at_work(chat: Chat, chat_model: Model) -> None:
    thread = threading.Thread(target=chat.prefill, args=(FIRST * 8,))
    thread.start()
    text = chat.ask(FIRST).text
    thread.join()
    assert text == chat_model.ask(FIRST, max_tokens=8).text


# ---- history --------------------------------------------------------------------------------------------------------


def test_regenerate_replaces_the_last_answer(chat: Chat) -> None:
    chat.ask(FIRST)
    second = chat.ask(SECOND)
    assert chat.regenerate().text == second.text and chat.turns == 2
    sampled = chat.regenerate(temperature=2.0, top_k=0, top_p=1.0, min_p=0.0, seed=1)
    assert contents(chat)[2:] == [("user", SECOND), ("assistant", sampled.text)] and sampled.text != second.text
    assert "".join(chat.stream_again()) == second.text and chat.turns == 2
    with pytest.raises(OptionError):
        chat.regenerate(max_tokens=0)
    for wait in (False, True):  # whether the new answer was there, though nobody had heard of it
        stream = chat.stream_again(max_tokens=3)
        while wait and chat.last is not None and chat.last.text == second.text:
            time.sleep(0.001)
        stream.close()
        assert contents(chat)[2:] == [("user", SECOND), ("assistant", second.text)] and chat.last.text == second.text


def test_undo_and_drop_take_turns_from_the_two_ends(chat: Chat) -> None:
    assert chat.undo() is None and chat.drop_oldest() == 0
    for question in ("a", "b", "c", "d"):
        chat.ask(question)
    assert chat.undo() == "d" and chat.drop_oldest(2) == 2
    assert [content for role, content in contents(chat) if role == "user"] == ["c"]
    assert chat.drop_oldest(5) == 1 and chat.messages == []
    with pytest.raises(OptionError, match="n is -1"):
        chat.drop_oldest(-1)
    with pytest.raises(OptionError, match="no answer yet"):
        chat.regenerate()


def test_a_full_context_says_how_many_turns_to_drop(chat_path: Path) -> None:
    with rim_edge.load(chat_path, n_ctx=200, **EXACT) as model, model.chat(max_tokens=10) as chat:
        with pytest.raises(ContextFullError) as caught:
            while chat.turns < 50:
                chat.ask(FIRST)
        turns = caught.value.turns
        assert 0 < turns < chat.turns and f"drop the oldest {turns} of {chat.turns} turns" in str(caught.value)
        assert caught.value.needed > caught.value.available
        before = chat.turns
        assert chat.drop_oldest(turns) == turns
        answer = chat.ask(FIRST)
        assert answer.finish == "length" and chat.turns == before - turns + 1
        with pytest.raises(ContextFullError, match="the message takes") as caught:
            chat.ask("x" * 500)
        assert caught.value.turns == 0


def test_a_conversation_is_saved_and_loaded_whole(chat_model: Model, tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    with chat_model.chat(system="be é", max_tokens=5) as chat:
        chat.ask("odd \udcff text")
        chat.ask(SECOND)
        chat.save(file)
        kept = contents(chat)
        third = chat.ask(FIRST)
        chat.save(file.with_name("later.json"))
    assert {entry.name for entry in tmp_path.iterdir()} == {"talk.json", "later.json"}
    with chat_model.chat(max_tokens=5) as other:
        other.ask("forgotten")
        other.load(file)
        assert contents(other) == kept and other.last is None
        assert other.ask(FIRST).text == third.text


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        ([], "no format"),
        ({"format": "other"}, "no format"),
        ({"format": "rim-edge-chat", "version": 2}, "has version 2, this RiM Edge reads version 1"),
        ({"format": "rim-edge-chat", "version": 1, "system": 3}, "system is not text"),
        ({"format": "rim-edge-chat", "version": 1}, "not a list of turns"),
        (
            {"format": "rim-edge-chat", "version": 1, "messages": [{"role": "user", "content": "a"}]},
            "not a list of turns",
        ),
        (
            {"format": "rim-edge-chat", "version": 1, "messages": [{"role": "user", "content": "a"}] * 2},
            "message 1 is not text of the assistant",
        ),
    ],
)
def test_a_file_that_is_no_conversation_leaves_the_present_one(
    chat: Chat, tmp_path: Path, document: Any, message: str
) -> None:
    chat.ask(FIRST)
    before = contents(chat)
    file = tmp_path / "bad.json"
    file.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
    with pytest.raises(OptionError, match=message) as caught:
        chat.load(file)
    assert str(file) in str(caught.value) and contents(chat) == before


def test_files_that_cannot_be_read_or_written_are_named(chat: Chat, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"none\.json: the conversation cannot be read"):
        chat.load(tmp_path / "none.json")
    with pytest.raises(OptionError, match="cannot be saved"):
        chat.save(tmp_path / "no" / "folder.json")
    with pytest.raises(OptionError, match="cannot be saved"):
        chat.save(tmp_path)
    assert list(tmp_path.iterdir()) == []
