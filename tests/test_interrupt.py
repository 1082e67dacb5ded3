"""Ctrl-C and the end of the process, in real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.exact import make_endless_model

HEAD = """
import sys, rim_edge
model = rim_edge.load(sys.argv[1], n_ctx=16000, n_threads=1)
chat = model.chat()
"""
ASK = """
try:
    print("started", flush=True)
    model.ask("a")
except KeyboardInterrupt:
    print("interrupted", model.ask("a", max_tokens=2).tokens.answer)
"""
MANY = """
try:
    print("started", flush=True)
    model.ask_many(["a"] * 500)
except KeyboardInterrupt:
    print("interrupted", model.ask("a", max_tokens=2).tokens.answer)
"""
STREAM = """
try:
    for n, piece in enumerate(chat.stream("a")):
        if n == 3:
            print("started", flush=True)
except KeyboardInterrupt:
    print("interrupted", chat.turns, chat.last.finish, chat.ask("b", max_tokens=2).tokens.answer)
"""
ABANDON = """
stream = chat.stream("a")
next(stream)
print("started", flush=True)
sys.exit("left")
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_endless_model(tmp_path_factory.mktemp("interrupt") / "endless.gguf")


def run(code: str, path: Path, *, interrupt: bool = True) -> tuple[str, str]:
    """Output and errors of ``code``, which got Ctrl-C after its first line."""
    command = [sys.executable, "-c", HEAD + code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        if interrupt:
            process.send_signal(signal.SIGINT)
        try:
            return process.communicate(timeout=60)
        finally:
            process.kill()


@pytest.mark.parametrize("code", [ASK, MANY])
def test_ctrl_c_stops_ask_and_the_model_answers_on(code: str, path: Path) -> None:
    assert run(code, path) == ("interrupted 2\n", "")


def test_ctrl_c_stops_a_stream_keeps_its_text_and_the_chat_goes_on(path: Path) -> None:
    assert run(STREAM, path) == ("interrupted 1 cancelled 2\n", "")


def test_an_abandoned_stream_does_not_hold_the_process(path: Path) -> None:
    assert run(ABANDON, path, interrupt=False) == ("", "left\n")
