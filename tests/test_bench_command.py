"""``rim-edge bench`` as a user runs it, on tiny models: what is counted, shown and written, never how fast."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from shapes import make_model
from terminal import COMMAND, environment

from rim_edge.benchmark import limits, plan, report
from rim_edge.benchmark.limits import BLAS, Limits
from rim_edge.cli.app import cli

QUICK = ["--threads", "1", "--prompt-tokens", "60", "--answer-tokens", "3", "--cot-tokens", "4"]
ANSWERS = ["answer.direct", "answer.rim", "answer.auto", "answer.cot"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits as if measured, and short texts."""
    made = Limits(1, 1 << 28, 1 << 20, [1e10], [2e10], {BLAS: [1e11], "ggml F32": [5e10]}, blas="a BLAS")
    monkeypatch.setattr(limits, "measure", lambda work, n_threads: made)
    monkeypatch.setattr(plan, "WIDTHS", (8, 16))
    monkeypatch.setattr(plan, "LANES", (1, 2))
    monkeypatch.setattr(plan, "DECODED", 3)


def bench(*arguments: object) -> Result:
    signals = signal.getsignal(signal.SIGTERM)
    try:
        return CliRunner().invoke(cli, ["bench", *map(str, arguments)])
    finally:
        signal.signal(signal.SIGTERM, signals)


def measured(*arguments: object) -> dict[str, Any]:
    result = bench(*arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, ""), result.stderr
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


def test_every_sample_of_every_case_with_its_limit(tmp_path: Path) -> None:
    found = measured(make_model(tmp_path / "tiny.gguf"), "--rounds", 2, *QUICK)
    cases = {case["key"]: case for case in found["cases"]}
    assert list(cases)[:4] == ANSWERS and found["left_out"] == []
    for case in cases.values():
        assert list(case["engines"]) == list(case["samples"]) == ["rim-edge"] and len(case["samples"]["rim-edge"]) == 2
        for figure, numbers in case["engines"]["rim-edge"].items():
            values = sorted(sample[figure] for sample in case["samples"]["rim-edge"])
            assert numbers["least"] == pytest.approx(values[0], rel=1e-4)
            assert numbers["median"] == pytest.approx(sum(values) / 2, rel=1e-4)
            assert numbers["n"] == 2 and ("share" in numbers) == (case["key"] != "process")
    for sample in cases["answer.rim"]["samples"]["rim-edge"]:
        assert sample["depth"] == 4 and 0 < sample["prompt_ms"] < sample["ttft_ms"] < sample["total_ms"]
        assert 40 <= sample["n_prompt"] <= 60
    reused = cases["second_turn.reused"]["samples"]["rim-edge"][0]["reused"]
    assert reused > 60 and cases["second_turn.reused"]["label"].startswith(f"{reused} of ")
    assert cases["second_turn.anew"]["samples"]["rim-edge"][0]["reused"] == 0
    assert found["settings"]["threads"] == 1 and found["settings"]["rounds"] == 2
    assert {"cpu", "physical_cores", "governor", "packages"} <= set(found["machine"])
    assert found["peak_rss_bytes"]["rim-edge"] > 1 << 20
    assert [entry["peak"]["kind"] for entry in found["limits"]] == [BLAS]


def test_a_model_without_blocks_is_measured_without_them(tmp_path: Path) -> None:
    path = make_model(tmp_path / "plain.gguf", spec=None)
    found = measured(path, "--rounds", 1, *QUICK)
    keys = [case["key"] for case in found["cases"]]
    assert [key for key in keys if key.startswith(("answer", "readouts"))] == ["answer.direct", "answer.cot"]
    assert found["left_out"] == ["memory blocks: the model has no memory-slot metadata (rim.*)"]
    assert "Left out: memory blocks: the model has no" in "\n".join(line for line, _ in report.lines(found))


@pytest.mark.parametrize("architecture", ["gpt2", "gemma3", "mamba"])
def test_models_of_every_kind_are_measured(tmp_path: Path, architecture: str) -> None:
    found = measured(make_model(tmp_path / "tiny.gguf", architecture), "--rounds", 1, *QUICK)
    keys = [case["key"] for case in found["cases"]]
    blocks = architecture != "mamba"
    assert [key in keys for key in ANSWERS] == [True, blocks, blocks, True]
    assert {"second_turn.reused", "second_turn.anew", "prefill.16.1", "decode.2.1", "process"} <= set(keys)
    assert [reason.split(":")[0] for reason in found["left_out"]] == ([] if blocks else ["memory blocks"])


def test_a_peer_runs_in_turn_and_every_pair_gives_a_ratio(tmp_path: Path) -> None:
    found = measured(make_model(tmp_path / "tiny.gguf"), "--rounds", 1, "--compare", "llama-cpp-python", *QUICK)
    cases = {case["key"]: case for case in found["cases"]}
    assert set(found["peak_rss_bytes"]) == {"rim-edge", "llama-cpp-python"}
    for key in (
        "answer.direct",
        "answer.rim",
        "answer.cot",
        "second_turn.reused",
        "prefill.8.1",
        "decode.1.1",
        "process",
    ):
        assert set(cases[key]["samples"]) == {"rim-edge", "llama-cpp-python"}
        assert set(cases[key]["ratio"]) == set(cases[key]["engines"]["rim-edge"])
    assert "ratio" not in cases["answer.auto"]
    rim = cases["answer.rim"]
    ours, theirs = (rim["samples"][name][0] for name in ("rim-edge", "llama-cpp-python"))
    expected = theirs["ttft_ms"] / (ours["ttft_ms"] - ours["prompt_ms"])
    assert rim["ratio"]["ttft_ms"]["median"] == pytest.approx(expected, rel=1e-3)
    lines = [line for line, _ in report.lines(found)]
    assert any(line.startswith("against llama-cpp-python") for line in lines)
    assert max(map(len, lines)) <= 80 and not any(char < " " for line in lines for char in line)


def test_table_files_and_picture(tmp_path: Path) -> None:
    model, output, picture = make_model(tmp_path / "tiny.gguf"), tmp_path / "b.json", tmp_path / "b.png"
    result = bench(model, "--rounds", 1, "--output", output, "--picture", picture, *QUICK)
    assert (result.exit_code, result.stderr) == (0, ""), result.stderr
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80 and "\x1b" not in result.stdout
    for title in ("to first answer token, ms", "prefill, tokens/s", "a new process", "limits of this machine"):
        assert any(line.startswith(title) for line in lines)
    assert json.loads(output.read_text())["format"] == 1
    assert picture.read_bytes().startswith(b"\x89PNG") and sorted(tmp_path.iterdir()) == [output, picture, model]
    again = bench(model, "--output", output, *QUICK)
    assert again.exit_code == 1 and again.stderr == f"Error: {output} exists: choose another name or give --force\n"


def test_what_is_wrong_is_said_in_one_line_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(tmp_path / "tiny.gguf")
    page = tmp_path / "page.gguf"
    page.write_text("<!DOCTYPE html><html></html>")
    for arguments, code, words in (
        ((tmp_path / "none.gguf",), 1, "no such file"),
        ((tmp_path,), 1, "is a directory"),
        ((page,), 1, "it is a web page"),
        ((model, "--compare", "ollama"), 2, "there is no peer 'ollama' to compare with, known are: llama-cpp-python"),
        ((model, "--picture", tmp_path / "b.bmp"), 2, "a picture is written as .png, .svg or .pdf"),
        ((model, "--output", tmp_path / "no" / "b.json"), 1, "is no folder"),
        ((model, "--cot-tokens", 5000), 2, "do not fit the context of"),
    ):
        result = bench(*arguments)
        assert (result.stdout, result.stderr.count("\n"), result.exit_code) == ("", 1, code)
        assert result.stderr.startswith("Error: ") and words in result.stderr
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    result = bench(model, "--picture", tmp_path / "b.png")
    assert (result.exit_code, result.stderr) == (
        2,
        "Error: a picture needs matplotlib: pip install 'rim-edge[report]'\n",
    )


def children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    return [int(line.split()[0]) for line in found.stdout.splitlines() if int(line.split()[1]) == pid]


def test_ctrl_c_leaves_neither_file_nor_process(tmp_path: Path) -> None:
    model, output = make_model(tmp_path / "tiny.gguf"), tmp_path / "b.json"
    command = [*COMMAND, "bench", str(model), "--rounds", "1000", "--output", str(output), *QUICK]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(tmp_path))
    end = time.monotonic() + 120
    while not (left := children(process.pid)) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    assert left
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, b"") and err.strip() == b"Error: interrupted"
    assert list(tmp_path.iterdir()) == [model]
    for pid in left:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
