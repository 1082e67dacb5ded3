"""``rim-edge eval`` as a command: tables, JSON, errors, kill and go on."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from eval_files import ROWS, answers, count_right, read_lines, write_rows
from terminal import COMMAND, CTRL_C, Terminal, environment

from rim_edge.cli.app import cli
from rim_edge.evaluation.record import read_record
from rim_edge.evaluation.summary import summarize
from tests.exact import make_endless_model
from tests.shapes import make_model

QUICK = ("-t", "1", "--max-tokens", "4", "--lanes", "2", "--latency", "1")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with data.jsonl."""
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "data.jsonl")
    return tmp_path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["eval", *map(str, arguments)])


def output_of(place: Path) -> Path:
    (path,) = place.glob("*.eval.jsonl")
    return path


def test_tables(rim_path: Path, place: Path) -> None:
    result = run(rim_path, "data.jsonl", *QUICK)
    assert result.exit_code == 0, result.stderr
    assert output_of(place).name == "rim.data.eval.jsonl"
    right = count_right(output_of(place))
    lines = result.stdout.splitlines()
    assert lines[0] == "Accuracy on 6 questions"
    assert " ".join(lines[1].split()) == "right % 95 % vs direct p vs final p"
    for name, words in (("direct", "direct"), ("block_4", "block 4 final"), ("any_block", "any block")):
        (line,) = [line for line in lines[2:14] if line.startswith(words)]
        assert line[len(words) :].split()[0] == str(right[name])
    assert "Milliseconds of one question at a time, median of 1" in lines
    assert lines[-1] == "All answers: rim.data.eval.jsonl"
    assert any(line.startswith("Where some block is right, the choice is right: final ") for line in lines) == bool(
        right["any_block"]
    )
    assert re.search(r"[\x00-\x08\x0b-\x1f\x7f]", result.stdout + result.stderr) is None


def test_json_is_the_summary_of_the_file(rim_path: Path, place: Path) -> None:
    result = run(rim_path, "data.jsonl", *QUICK, "--json", "--cot", "--cot-tokens", "5", "-o", "out.jsonl")
    printed = json.loads(result.stdout)
    summary = summarize(*read_record(place / "out.jsonl"))
    rounded = json.loads(json.dumps(summary), parse_float=lambda text: float(f"{float(text):.6g}"))
    assert {name: printed[name] for name in rounded} == rounded
    assert printed["answers"] == "out.jsonl" and printed["rows_without_answer"] == []
    assert printed["model"]["name"] == "rim.gguf" and printed["data"]["name"] == "data.jsonl"
    assert {name: mode["right"] for name, mode in printed["modes"].items()} == count_right(place / "out.jsonl")


def test_the_bundled_model(place: Path) -> None:
    rows = [
        {"question": "Tom has 5 apples. Tom buys 3 more apples. How many apples does Tom have?", "answer": "#### 8"},
        {"question": "Sara has 2 cups. Sara buys 4 more cups. How many cups does Sara have?", "answer": "6 cups"},
    ]
    write_rows(place / "data.jsonl", rows)
    result = run("data.jsonl", "--suite", "gsm8k", "--latency", "0", "--json")
    summary = json.loads(result.stdout)
    assert summary["questions"] == 2 and summary["depth"] == 8
    assert summary["model"]["name"] == "rim-tiny.gguf"
    assert {name: mode["right"] for name, mode in summary["modes"].items()} == count_right(output_of(place))
    for entry in answers(output_of(place)):
        assert entry["correct"] == (entry["value"] == entry["reference"][0])


def test_rows_without_answers_are_named(rim_path: Path, place: Path) -> None:
    write_rows(place / "data.jsonl", [{"question": "a"}, ROWS[0], {"question": "b"}])
    result = run(rim_path, "data.jsonl", *QUICK, "--latency", "0")
    assert result.exit_code == 0
    assert "Note: 2 rows without an answer left out (line 1, 3)" in result.stderr
    assert result.stdout.startswith("Accuracy on 1 questions")
    write_rows(place / "data.jsonl", [{"question": "a"}])
    result = run(rim_path, "data.jsonl", "-o", "none.jsonl")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: no row of the data has an answer")
    assert not (place / "none.jsonl").exists()


def test_a_model_without_memory_blocks(place: Path) -> None:
    make_model(place / "plain.gguf", spec=None)
    result = run("plain.gguf", "data.jsonl", *QUICK)
    assert result.exit_code == 0
    assert result.stderr == "Note: this model has no memory blocks (no rim.* metadata): direct answers only\n"
    assert [line.split()[0] for line in result.stdout.splitlines()[2:3]] == ["direct"]
    result = run("plain.gguf", "data.jsonl", *QUICK, "--blocks", "4", "-o", "x.jsonl")
    assert result.exit_code == 1 and "no memory-slot metadata" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("missing.gguf", "data.jsonl"), 1, "missing.gguf"),
        (("rim.gguf",), 2, "no DATA: give a file of questions with answers"),
        (("a", "b", "c"), 2, "too many arguments"),
        (("missing.jsonl",), 1, "missing.jsonl: No such file or directory"),
        (("bad.jsonl",), 1, "Error: bad.jsonl, line 2, column 1: not JSON (Expecting value)"),
        (("data.jsonl", "--suite", "svamp"), 1, "data.jsonl, line 1: no question, expected the field 'Body'"),
        (("data.jsonl", "--suite", "gsm"), 2, "'gsm' is not one of"),
        (("data.jsonl", "--blocks", "999"), 2, "runs 0 to 8"),
        (("data.jsonl", "--prompt", "Hello"), 2, "the prompt holds no {question}"),
        (("data.jsonl", "--output", "data.jsonl", "--force"), 2, "would overwrite what is read"),
        (("data.jsonl", "--output", "missing/out.jsonl"), 1, "cannot write missing/out.jsonl"),
    ],
)
def test_errors_leave_nothing(place: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    (place / "bad.jsonl").write_text('{"question": "a", "answer": "1"}\nnonsense\n')
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    result = run(*arguments)
    assert result.exit_code == code
    assert message in result.stderr and result.stdout == ""
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before


def test_another_model_is_refused(rim_path: Path, place: Path) -> None:
    assert run(rim_path, "data.jsonl", *QUICK, "--latency", "0", "-o", "out.jsonl").exit_code == 0
    before = (place / "out.jsonl").read_bytes()
    make_model(place / "other.gguf")
    result = run("other.gguf", "data.jsonl", *QUICK, "-o", "out.jsonl")
    assert result.exit_code == 1 and "out.jsonl holds another evaluation (model.sha256 is " in result.stderr
    result = run(rim_path, "data.jsonl", *QUICK, "--seed", "5", "-o", "out.jsonl")
    assert "settings.seed is 0 there, 5 here" in result.stderr
    assert (place / "out.jsonl").read_bytes() == before


# ---- processes -------------------------------------------------------------------------------------------------------


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path / "state")


def command(rim_path: Path, place: Path, output: str) -> list[str]:
    options = [*QUICK, "--latency", "3", "-o", str(place / output)]
    return ["eval", str(rim_path), str(place / "data.jsonl"), *options]


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for(path: Path, n_lines: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while lines_of(path) < n_lines:
        assert process.poll() is None, "it ended before it could be stopped"
        assert time.monotonic() < end, "no answers"
        time.sleep(0.002)


def finished(arguments: list[str], env: dict[str, str]) -> Any:
    result = subprocess.run([*COMMAND, *arguments, "--json"], capture_output=True, env=env, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_killed_and_gone_on(rim_path: Path, place: Path, env: dict[str, str], how: signal.Signals) -> None:
    write_rows(place / "data.jsonl", ROWS * 4)
    output = place / "out.jsonl"
    process = subprocess.Popen([*COMMAND, *command(rim_path, place, "out.jsonl")], env=env, stderr=subprocess.PIPE)
    wait_for(output, 6, process)
    process.send_signal(how)
    process.communicate(timeout=60)
    assert process.returncode == -how
    kept = output.read_bytes()
    assert kept.count(b"\n") >= 6
    summary = finished(command(rim_path, place, "out.jsonl"), env)
    assert output.read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
    assert summary["questions"] == 24
    assert {name: mode["right"] for name, mode in summary["modes"].items()} == count_right(output)
    finished(command(rim_path, place, "whole.jsonl"), env)
    assert answers(output) == answers(place / "whole.jsonl")


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model that never ends an answer by itself."""
    yield make_endless_model(tmp_path_factory.mktemp("models") / "endless.gguf")


def test_ctrl_c_keeps_what_is_done(slow: Path, place: Path, env: dict[str, str]) -> None:
    output = place / "out.jsonl"
    arguments = ["eval", str(slow), str(place / "data.jsonl"), "-t", "1", "--lanes", "1", "--latency", "0"]
    arguments += ["--max-tokens", "100", "-o", str(output)]
    with Terminal(*arguments, env=env) as terminal:
        wait_for(output, 2, terminal.process)
        terminal.send(CTRL_C)
        terminal.expect("Interrupted: ")
        terminal.expect("The same command goes on")
        assert terminal.wait() == 130
        assert "Traceback" not in terminal.screen
    kept = read_lines(output)
    assert 1 < len(kept) < 1 + 2 * len(ROWS)
    result = subprocess.run([*COMMAND, *arguments], capture_output=True, env=env, timeout=300, check=False)
    assert result.returncode == 0 and b"Note: going on with" in result.stderr
    assert read_lines(output)[: len(kept)] == kept
    assert len(answers(output)) == 2 * len(ROWS)


def test_a_bar_and_a_table_on_a_terminal(rim_path: Path, place: Path, env: dict[str, str]) -> None:
    with Terminal(*command(rim_path, place, "out.jsonl"), env=env, columns=110) as terminal:
        terminal.expect("Accuracy on 6 questions")
        terminal.expect("block 4 final")
        terminal.expect("All answers: ")
        assert terminal.wait() == 0
