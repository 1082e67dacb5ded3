"""The command as a process: a chat in a terminal, Ctrl-C at any moment, pipes."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from exact import make_endless_model
from terminal import ALT_ENTER, COMMAND, CTRL_C, CTRL_D, ENTER, TAB, Terminal, environment

QUESTION = "Tom has 5 apples. Tom buys 3 more apples. How many apples does Tom have?"
LONG = ("-t", "1", "-c", "16000")  # room for an answer of many seconds
PROMPT = "\n>"  # prompt_toolkit moves the cursor instead of printing the blank


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that never ends an answer by itself."""
    return str(make_endless_model(tmp_path_factory.mktemp("models") / "endless.gguf"))


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path / "state")


@pytest.fixture
def chat(env: dict[str, str]) -> Iterator[Terminal]:
    with Terminal("chat", env=env) as terminal:
        terminal.expect(PROMPT)
        yield terminal


def run(*arguments: str, env: dict[str, str], stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*COMMAND, *arguments], input=stdin, capture_output=True, env=env, timeout=120, check=False)


# ---- chat -----------------------------------------------------------------------------------------------------------


def test_a_conversation(chat: Terminal, tmp_path: Path) -> None:
    chat.send(QUESTION + ENTER)
    chat.expect("8 blocks · ")
    chat.expect(PROMPT)
    chat.send("/tra" + TAB + ENTER)
    chat.expect("probability")
    chat.expect(">      8")
    chat.expect(PROMPT)
    chat.send("/blocks 2" + ENTER + QUESTION + ENTER)
    chat.expect("2 blocks · ")
    chat.send(f"/save {tmp_path}/talk.json" + ENTER)
    chat.expect("saved 2 turns")
    chat.send("/reset" + ENTER + f"/load {tmp_path}/talk.json" + ENTER)
    chat.expect("loaded 2 turns")
    chat.expect(PROMPT)
    chat.send(CTRL_D)
    assert chat.wait() == 0
    assert json.loads((tmp_path / "talk.json").read_text())["messages"][0]["content"] == QUESTION


def test_messages_of_several_lines(chat: Terminal, tmp_path: Path) -> None:
    chat.send("one" + ALT_ENTER + "two\\" + ENTER + "three" + ENTER)
    chat.expect("8 blocks · ")
    chat.expect(PROMPT)
    chat.send("\x1b[200~four\nfive\x1b[201~" + ENTER)
    chat.expect("8 blocks · ")
    chat.expect(PROMPT)
    chat.send(f"/save {tmp_path}/talk.json" + ENTER)
    chat.expect("saved 2 turns")
    contents = [m["content"] for m in json.loads((tmp_path / "talk.json").read_text())["messages"]]
    assert contents[0::2] == ["one\ntwo\nthree", "four\nfive"]


def test_ctrl_c_at_the_prompt_clears_the_line_and_says_how_to_leave(chat: Terminal) -> None:
    chat.send("half a message" + CTRL_C)
    chat.expect(PROMPT)
    chat.send(CTRL_C)
    chat.expect("Ctrl-D or /exit leaves")
    chat.expect(PROMPT)
    chat.send("/exit" + ENTER)
    assert chat.wait() == 0
    assert "half a message" not in (chat.screen.split("leaves")[1])


def test_history_is_kept_for_the_user_alone(env: dict[str, str], tmp_path: Path) -> None:
    for keys in ("/blocks 3" + ENTER, "\x1b[A" + ENTER):
        with Terminal("chat", env=env) as terminal:
            terminal.expect(PROMPT)
            terminal.send(keys)
            terminal.expect("blocks: 3")
            terminal.expect(PROMPT)
            terminal.send(CTRL_D)
            assert terminal.wait() == 0
    history = tmp_path / "state" / "rim-edge" / "chat_history"
    assert "/blocks 3" in history.read_text()
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


def test_no_history_where_the_state_folder_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with Terminal("chat", env=environment(tmp_path / "file")) as terminal:
        terminal.expect(PROMPT)
        terminal.send("/temp" + ENTER)
        terminal.expect("temperature: 0.0")
        terminal.expect(PROMPT)
        terminal.send(CTRL_D)
        assert terminal.wait() == 0


def test_ctrl_c_stops_an_answer_keeps_its_text_and_stays(slow: str, env: dict[str, str], tmp_path: Path) -> None:
    with Terminal("chat", slow, *LONG, env=env) as terminal:
        terminal.expect(PROMPT)
        for turn in (1, 2):
            terminal.send(f"question {turn}" + ENTER)
            terminal.expect("\n")
            terminal.expect_more()
            terminal.send(CTRL_C)
            terminal.expect("· stopped")
            terminal.expect(PROMPT)
        terminal.send(f"/save {tmp_path}/talk.json" + ENTER)
        terminal.expect("saved 2 turns")
        terminal.expect(PROMPT)
        terminal.send(CTRL_D)
        assert terminal.wait() == 0
        assert terminal.echoes()
    messages = json.loads((tmp_path / "talk.json").read_text())["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant"] * 2
    assert all(m["content"] for m in messages)


def test_keys_typed_during_an_answer_are_kept_for_the_prompt(slow: str, env: dict[str, str]) -> None:
    with Terminal("chat", slow, "-t", "1", "--max-tokens", "1000", env=env) as terminal:
        terminal.expect(PROMPT)
        terminal.send("question" + ENTER)
        terminal.expect("\n")
        terminal.expect_more()
        terminal.send("/temp")
        terminal.expect("tokens/s")
        assert "/temp" not in terminal.screen[: terminal.screen.index("tokens/s")]
        terminal.expect(PROMPT)
        terminal.expect("/temp")
        terminal.send(ENTER)
        terminal.expect("temperature: 0.0")


def test_a_full_context_offers_to_drop_old_turns(slow: str, env: dict[str, str]) -> None:
    with Terminal("chat", slow, "-t", "1", "--ctx", "120", "--max-tokens", "20", env=env) as terminal:
        terminal.expect(PROMPT)
        for _ in range(2):
            terminal.send("a question of some length" + ENTER)
            terminal.expect("tokens/s")
            terminal.expect(PROMPT)
        terminal.send("a question of some length" + ENTER)
        terminal.expect("drop the oldest")
        terminal.expect("and go on? [Y/n]")
        terminal.send("n" + ENTER)
        terminal.expect(PROMPT)
        terminal.send("a question of some length" + ENTER)
        terminal.expect("and go on? [Y/n]")
        terminal.send(ENTER)
        terminal.expect("Note: dropped the oldest")
        terminal.expect("tokens/s")


def test_a_dumb_terminal_gets_plain_lines(tmp_path: Path) -> None:
    with Terminal("chat", env=environment(tmp_path, TERM="dumb")) as terminal:
        terminal.expect(PROMPT)
        terminal.send(QUESTION + "\n")
        terminal.expect("8 blocks · ")
        terminal.expect(PROMPT)
        terminal.insist(CTRL_C, PROMPT)
        terminal.send("/exit\n")
        assert terminal.wait() == 0
        assert "\x1b" not in terminal.raw


def test_chat_reads_a_pipe(env: dict[str, str]) -> None:
    result = run("chat", env=env, stdin=f"{QUESTION}\n/blocks 1\n{QUESTION}\n".encode())
    lines = result.stdout.decode().splitlines()
    assert lines[1].startswith("8 blocks · ")
    assert lines[2] == "blocks: 1"
    assert lines[4].startswith("1 block · ")
    assert (result.stderr, result.returncode) == (b"", 0)


# ---- ask ------------------------------------------------------------------------------------------------------------


def test_ask_prints_answer_depth_and_time(env: dict[str, str]) -> None:
    result = run("ask", QUESTION, env=env)
    answer, line = result.stdout.decode().splitlines()
    assert answer.strip()
    assert line.startswith("8 blocks · ")
    assert "to first token" in line
    assert (result.stderr, result.returncode) == (b"", 0)


def test_ask_in_a_terminal_never_prompts(env: dict[str, str]) -> None:
    with Terminal("ask", env=env) as terminal:
        assert terminal.wait() == 2
        assert "no question: give it in quotes, or on standard input" in terminal.screen


def test_ask_stops_quietly_when_its_reader_leaves(env: dict[str, str]) -> None:
    process = subprocess.Popen(
        [*COMMAND, "ask", "--json"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    )
    assert process.stdin and process.stdout and process.stderr
    process.stdin.write(f"{QUESTION}\n".encode())
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["depth"] == 8  # answered before the input ends
    process.stdout.close()
    process.stdin.write(f"{QUESTION}\n".encode() * 3)
    process.stdin.close()
    assert process.wait(60) == 1
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.parametrize("arguments", [["ask", "-q", "SLOW", "question"], ["ask", "--json", "SLOW", "question"]])
def test_ctrl_c_ends_ask_with_130(slow: str, env: dict[str, str], arguments: list[str]) -> None:
    process = subprocess.Popen(
        [*COMMAND, *(slow if word == "SLOW" else word for word in arguments), *LONG],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
    )
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert stderr.decode().endswith("Error: interrupted\n")
    assert "Traceback" not in stderr.decode()
    assert process.returncode == 130


def test_ctrl_c_ends_a_chat_of_a_script_with_130(slow: str, env: dict[str, str]) -> None:
    process = subprocess.Popen(
        [*COMMAND, "chat", slow, *LONG], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    )
    assert process.stdin is not None
    process.stdin.write(b"question\nanother\n")
    process.stdin.flush()
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert stderr.decode().endswith("Error: interrupted\n")
    assert process.returncode == 130


def test_ctrl_c_at_any_moment_of_the_start_is_quiet(env: dict[str, str]) -> None:
    for delay in (0.15, 0.3, 0.45, 0.6):
        process = subprocess.Popen(
            [*COMMAND, "ask", "--json"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
        )
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        try:
            _, stderr = process.communicate(timeout=30)
        finally:
            process.kill()
        if b"Traceback" in stderr:  # of Python's own start alone, before the first line of the command
            assert b"/rim_edge" not in stderr, stderr.decode()
        else:
            assert process.returncode in (130, -signal.SIGINT)


def test_a_closed_output_is_no_traceback(env: dict[str, str]) -> None:
    result = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *COMMAND, "ask", QUESTION], capture_output=True, env=env, timeout=60, check=False
    )
    assert b"Traceback" not in result.stderr
    assert result.returncode in (0, 1)
