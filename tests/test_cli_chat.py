"""``rim-edge chat`` with a scripted model, without a terminal: what its commands print and how a script ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from stub_model import StubModel, answer

import rim_edge
from rim_edge.cli import slash
from rim_edge.cli.app import cli
from rim_edge.errors import BackendError

FOOTER = "2 blocks · 12 ms to first token · 85 tokens/s\n"


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> StubModel:
    stub = StubModel()

    def load(path: str | None = None, **_: Any) -> StubModel:
        return stub

    monkeypatch.setattr(rim_edge, "load", load)
    return stub


def chat(stdin: str | bytes, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["chat", *arguments], input=stdin)


def test_answers_each_line_and_leaves(model: StubModel) -> None:
    model.replies["b"] = answer("**b**\n\n- x")
    result = chat("a\n\nb\n")
    assert result.stdout == f"42\n{FOOTER}**b**\n\n- x\n{FOOTER}"
    assert (result.stderr, result.exit_code, model.closed) == ("", 0, True)


def test_exit_leaves_before_the_end(model: StubModel) -> None:
    assert chat("/exit\nnever asked\n").stdout == ""


def test_a_backslash_joins_lines_and_two_slashes_are_text(model: StubModel) -> None:
    model.replies["a\nb"] = answer("joined")
    model.replies["/etc"] = answer("a path")
    assert chat("a\\\nb\n//etc\n").stdout == f"joined\n{FOOTER}a path\n{FOOTER}"


def test_options_by_slash(model: StubModel) -> None:
    commands = "/blocks\n/blocks 1\n/blocks auto\n/select vote\n/temp 0.5\n/seed 4\n/seed none\n/max-tokens 9\n/top-k\n"
    assert chat(commands).stdout.splitlines() == [
        "blocks: 2 (as trained)",
        "blocks: 1",
        "blocks: auto",
        "select: vote",
        "temperature: 0.5",
        "seed: 4",
        "seed: default",
        "max-tokens: 9",
        "top-k: 40",
    ]


def test_trace_is_the_table_of_the_last_answer(model: StubModel) -> None:
    assert chat("a\n/trace\n").stdout.splitlines()[2:] == [
        "   block  top token  probability  entropy  confidence  answer",
        "       1  ' 4'             0.500    1.250",
        ">      2  ' 4'             0.750    0.500      -0.100  42",
        "/readouts on decodes the answer of every readout from the next message on",
    ]


def test_history_by_slash(model: StubModel) -> None:
    lines = chat("a\n/regen\n/drop\n/reset\n/system Be brief.\n/system none\n").stdout.splitlines()
    assert lines[0::2][:2] == ["42", "42"]
    assert lines[4:] == [
        "dropped 1 turn",
        "the conversation starts anew",
        "system: Be brief.",
        "system: none",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/trac", "there is no command /trac: did you mean /trace?; //trac sends it as text"),
        ("/xyzzy", "there is no command /xyzzy: /help lists them; //xyzzy sends it as text"),
        ("/blocks 3", "blocks is 3, this model runs 0 to 2 (rim.max_block_count)"),
        ("/blocks many", "'many' is no depth: give a number of blocks, 0 for a direct answer, or auto"),
        ("/select best", "there is no selection 'best': final, vote, confidence, probe"),
        ("/temp warm", "'warm' is no temperature: give a number from 0"),
        ("/temp nan", "temperature is nan, expected 0 (greedy) or more"),
        ("/regen", "/regen answers the last message again, and there is none yet"),
        ("/trace", "/trace shows the readouts of the last answer, and there is no answer yet"),
        ("/save", "/save needs a file name: /save talk.json"),
        ("/reset now", "/reset takes no argument"),
        ("/drop all", "/drop takes a number of turns, not 'all'"),
        ("/readouts maybe", "/readouts takes on or off, not 'maybe'"),
    ],
)
def test_a_command_that_fails_is_one_line_and_the_chat_goes_on(model: StubModel, line: str, message: str) -> None:
    result = chat(f"{line}\na\n")
    assert result.stderr == f"Error: {message}\n"
    assert result.stdout == f"42\n{FOOTER}"
    assert result.exit_code == 1


def test_a_failed_answer_is_one_line_and_the_chat_goes_on(model: StubModel) -> None:
    model.replies["bad"] = BackendError("libllama failed")
    result = chat("bad\ngood\n")
    assert (result.stdout, result.stderr, result.exit_code) == (f"42\n{FOOTER}", "Error: libllama failed\n", 1)


def test_old_turns_make_room(model: StubModel) -> None:
    result = chat("a\nb\nc\n")
    assert result.stdout == f"42\n{FOOTER}" * 3
    assert result.stderr == "Error: the conversation does not fit\nNote: dropped the oldest 1 turn\n"
    assert result.exit_code == 0


def test_input_that_is_not_utf8(model: StubModel) -> None:
    result = chat(b"a\n\xff\n")
    assert result.stderr == "Error: standard input is not valid UTF-8 (line 2, byte 1): save it as UTF-8\n"
    assert result.exit_code == 1


def test_help_lists_every_command(model: StubModel) -> None:
    text = chat("/help\n").stdout
    assert all(f"/{name}" in text for name in slash.SLASHES if name != "quit")


def test_completion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("talk.json").touch()
    Path("talks").mkdir()

    def texts(line: str) -> list[str]:
        return [text for _, text in slash.complete(line)]

    assert texts("/se") == ["/select ", "/seed "]
    assert texts("/select p") == ["probe"]
    assert texts("/load ta") == ["talk.json", "talks/"]
    assert texts("/blocks a") == ["auto"]
    assert texts("hello") == texts("//se") == texts("/nope x") == []
