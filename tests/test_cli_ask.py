"""``rim-edge ask``: whole outputs, what counts as a model, standard input, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from stub_model import StubModel, answer

import rim_edge
from rim_edge.cli.app import cli
from rim_edge.errors import CancelledError, ContextFullError, ModelFileError

Load = Callable[..., StubModel]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> StubModel:
    stub = StubModel()

    def load(path: str | None = None, *, progress: Any = None, **options: Any) -> StubModel:
        if path is not None and "missing" in path:
            raise ModelFileError(f"{path}: no such file; give the path of a .gguf model")
        stub.asked.append({"load": path, **options})
        return stub

    monkeypatch.setattr(rim_edge, "load", load)
    return stub


def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(cli, ["ask", *arguments], input=stdin)


def questions(model: StubModel) -> list[str]:
    return [entry["question"] for entry in model.asked if "question" in entry]


def test_prints_answer_depth_and_time(model: StubModel) -> None:
    result = run("How many?")
    assert (result.stdout, result.stderr, result.exit_code) == (
        "42\n2 blocks · 12 ms to first token · 14 ms\n",
        "",
        0,
    )
    assert model.closed


def test_quiet_prints_the_answer_alone(model: StubModel) -> None:
    assert run("-q", "How many?").stdout == "42\n"


def test_readouts_are_a_table(model: StubModel) -> None:
    lines = run("-v", "How many?").stdout.splitlines()
    assert lines[2:] == [
        "   block  top token  probability  entropy  confidence  answer",
        "       1  ' 4'             0.500    1.250",
        ">      2  ' 4'             0.750    0.500      -0.100  42",
    ]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"depth": 0, "blocks": 0, "readout": 0}, "direct · 12 ms to first token · 14 ms"),
        ({"blocks": "auto", "depth": 1}, "1 block (auto) · 12 ms to first token · 14 ms"),
        ({"select": "vote", "readout": 1}, "2 blocks, readout 1 by vote · 12 ms to first token · 14 ms"),
        ({"finish": "length"}, "2 blocks · 12 ms to first token · 14 ms · cut at --max-tokens"),
        ({"finish": "context"}, "2 blocks · 12 ms to first token · 14 ms · cut: the context is full"),
    ],
)
def test_the_line_below_says_how_the_answer_came_about(model: StubModel, changes: dict[str, Any], line: str) -> None:
    model.replies["q"] = answer(**changes)
    assert run("q").stdout.splitlines()[1] == line


def test_json_object(model: StubModel) -> None:
    result = run("--json", "How many?")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "question": "How many?",
        "text": "42",
        "value": "42",
        "depth": 2,
        "blocks": 2,
        "select": "final",
        "readout": 2,
        "readouts": [
            {"block": 1, "top_token": " 4", "top_id": 7, "probability": 0.5, "entropy": 1.25, "probe": None}
            | {"text": None, "value": None, "confidence": None},
            {"block": 2, "top_token": " 4", "top_id": 7, "probability": 0.75, "entropy": 0.5, "probe": None}
            | {"text": "42", "value": "42", "confidence": -0.1},
        ],
        "timings": {"ttft_ms": 12.04, "total_ms": 14, "prefill_ms": 11.5, "decode_ms": 2, "tokens_per_s": 85.4},
        "tokens": {"prompt": 9, "reused": 0, "evaluated": 9, "slots": 8, "prefix": 0, "answer": 3},
        "finish": "stop",
        "notices": [],
    }


def test_json_reads_a_question_per_line(model: StubModel) -> None:
    stdin = 'one\n\n{"question": "two\\nlines", "id": 7, "answer": "x"}\r\n  {not json  \n'
    result = run("--json", stdin=stdin)
    objects = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(o["question"], o.get("id")) for o in objects] == [("one", None), ("two\nlines", 7), ("{not json", None)]
    assert result.exit_code == 0


def test_standard_input_is_one_question(model: StubModel) -> None:
    assert run(stdin="\ufeffline one\nline two\n").exit_code == 0
    assert run("-", "--json", "--no-lines", stdin="a\nb").exit_code == 0
    assert questions(model) == ["line one\nline two", "a\nb"]


def test_lines_without_json(model: StubModel) -> None:
    assert run("--lines", "-q", stdin="a\nb\n").stdout == "42\n42\n"


def test_a_question_that_does_not_fit_fails_alone(model: StubModel) -> None:
    model.replies["long"] = ContextFullError("the question takes 9 tokens and the context holds 8")
    result = run("--json", stdin="a\nlong\nb\n")
    objects = [json.loads(line) for line in result.stdout.splitlines()]
    assert objects[1] == {"question": "long", "error": "the question takes 9 tokens and the context holds 8"}
    assert [o.get("text") for o in objects] == ["42", None, "42"]
    assert result.stderr == "Error: line 2: the question takes 9 tokens and the context holds 8\n"
    assert result.exit_code == 1


def test_what_is_a_model_and_what_a_question(model: StubModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("weights.bin").write_bytes(b"x")
    Path("apples").mkdir()

    def loaded(*arguments: str, stdin: str = "from stdin") -> tuple[str | None, str]:
        model.asked.clear()
        assert run(*arguments, stdin=stdin).exit_code == 0
        return model.asked[0]["load"], model.asked[1]["question"]

    assert loaded("How many?") == (None, "How many?")
    assert loaded("model.gguf") == ("model.gguf", "from stdin")
    assert loaded("weights.bin") == ("weights.bin", "from stdin")
    assert loaded("apples") == (None, "apples")
    assert loaded("apples", "q") == ("apples", "q")
    assert loaded("-m", "apples", "q.gguf") == ("apples", "q.gguf")
    assert loaded() == (None, "from stdin")
    assert loaded("x" * 100_000) == (None, "x" * 100_000)


def test_options_reach_the_model(model: StubModel) -> None:
    options = "--blocks auto --select final --temp 0.5 --top-k 3 --top-p 0.5 --min-p 0 --seed 4 --max-tokens 5"
    more = "--stop a --stop b --system s -t 3 --ctx 99 -ngl all --cache-type q8_0 --flash-attention off --no-mmap"
    assert run("q", *options.split(), *more.split()).exit_code == 0
    loaded, asked = model.asked
    assert loaded == {"load": None, "n_ctx": 99, "n_threads": 3, "n_gpu_layers": -1, "cache_type": "q8_0"} | {
        "flash_attention": "off",
        "use_mmap": False,
    }
    assert asked == {
        "question": "q",
        "blocks": "auto",
        "select": "final",
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 0.5,
    } | {
        "min_p": 0.0,
        "seed": 4,
        "repeat_penalty": 1.0,
        "max_tokens": 5,
        "stop": ("a", "b"),
        "system": "s",
        "readouts": False,
    }


@pytest.mark.parametrize(
    ("arguments", "stdin", "message", "code"),
    [
        (["missing.gguf", "q"], None, "Error: missing.gguf: no such file; give the path of a .gguf model", 1),
        (["q", "--blocks", "3"], None, "Error: blocks is 3, this model runs 0 to 2 (rim.max_block_count)", 2),
        (["--select", "probe", "q"], None, "Error: --select probe: the model has no probe (rim.probe.weight)", 1),
        ([], b"ok \xff\n", "Error: standard input is not valid UTF-8 (byte 4): save it as UTF-8", 1),
        (["--json"], b"ok\nb\xc3(\n", "Error: standard input is not valid UTF-8 (line 2, byte 2): save it as UTF-8", 1),
        ([], b" \n\n", "Error: standard input holds no question", 1),
        (["--json"], b"", "Error: standard input holds no question", 1),
        (["--json"], b'{"q": 1}', "Error: line 1 of standard input is a JSON object without a text in its field", 1),
        (["bad\udcff"], None, "Error: the question is not valid UTF-8", 1),
    ],
)
def test_one_line_for_bad_input(
    model: StubModel, arguments: list[str], stdin: bytes | None, message: str, code: int
) -> None:
    result = run(*arguments, stdin=stdin)
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1
    assert result.exit_code == code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "b", "c"], "too many arguments: put the question in quotes"),
        (["--blocks", "some", "q"], "'some' is no depth: give a number of blocks, 0 for a direct answer, or auto"),
        (["--temp", "-1", "q"], "-1.0 is not in the range x>=0.0"),
        (["--select", "best", "q"], "'best' is not one of 'final', 'vote', 'confidence', 'probe'"),
        (["--gpu-layers", "x", "q"], "'x' is no number of layers: give a number, or all"),
        (["  "], "the question is empty"),
        (["--nonsense", "q"], "No such option"),
    ],
)
def test_wrong_usage_is_2(model: StubModel, arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert message in result.stderr
    assert result.exit_code == 2
    assert result.stdout == ""


def test_no_control_character_reaches_the_output(model: StubModel) -> None:
    model.replies["q"] = answer("a\x1b[31mb\x07\r\nc\x9b\u202ed", notices=("odd \x1b]0;title\x07 words",))
    result = run("q")
    assert result.stdout.splitlines()[:2] == ["a[31mb", "cd"]
    assert result.stderr == "Note: odd ]0;title words\n"
    line = run("--json", "q").stdout
    assert json.loads(line)["text"] == model.reply("q").text
    assert all(char.isprintable() for char in line.rstrip("\n"))


def test_interrupted_is_130(model: StubModel) -> None:
    model.replies["q"] = CancelledError("cancelled")
    result = run("q")
    assert (result.stderr, result.exit_code) == ("Error: interrupted\n", 130)


def test_a_defect_is_one_line_and_a_traceback_on_request(model: StubModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model.replies["q"] = ZeroDivisionError("oh\nno")
    result = run("q")
    assert result.stderr == "Error: ZeroDivisionError: oh no (a defect in rim-edge; RIM_EDGE_DEBUG=1 shows where)\n"
    assert result.exit_code == 1
    monkeypatch.setenv("RIM_EDGE_DEBUG", "1")
    assert "Traceback" in run("q").stderr


def test_a_plain_model_says_so_on_standard_error(model: StubModel) -> None:
    model.spec = None
    model.notices = ("no memory-slot metadata (rim.*): this model answers directly",)
    assert run("q").stderr == "Note: no memory-slot metadata (rim.*): this model answers directly\n"
