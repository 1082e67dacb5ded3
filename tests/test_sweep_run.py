"""Sweeps of tiny models: what is measured is true, what is done is not done again, nothing half-done is trusted."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from convert.sweep import store
from convert.sweep.plan import Settings, SweepOptions
from convert.sweep.progress import Watch
from convert.sweep.run import Sweep
from rim_edge import _native
from rim_edge.cli.app import cli
from rim_edge.spec import RimSpec
from tests.shapes import default_spec, make_model, random_probe

SCRIPT = Path(__file__).resolve().parents[1] / "convert" / "quantize.py"
SPEC = default_spec(answer_pattern=r"([a-z])", trained_direct=True, **random_probe(8, 256))
EXACT = Settings(max_tokens=6, batch=2, cache_type="f32", flash_attention="off", n_threads=1)
FAST = ("--rounds", "0", "--max-tokens", "6", "--batch", "2", "--threads", "1")


@pytest.fixture(scope="module")
def source(folder: Path) -> Path:
    return make_model(folder / "tiny-f32.gguf", n_embd=256, spec=SPEC)


@pytest.fixture(scope="module")
def data(folder: Path) -> Path:
    rows = [{"question": f"Tom has {i} apples and {i * 7} the many", "answer": "abcdefg"[i]} for i in range(7)]
    path = folder / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def swept(source: Path, data: Path, folder: Path) -> dict[str, Any]:
    options = SweepOptions(source, data, folder / "swept", ("bf16", "q4_k_m"), rounds=0, settings=EXACT)
    return Sweep(options, Watch()).run()


def answers(out: Path, name: str) -> list[dict[str, Any]]:
    lines = (out / name / "answers.jsonl").read_text().splitlines()[1:]
    return [json.loads(line) for line in lines]


def run(*arguments: object, cwd: Path | None = None) -> Result:
    return CliRunner().invoke(cli, ["quantize", *map(str, arguments)])


# ---- what is measured -----------------------------------------------------------------------------------------------


def plain_log_probabilities(path: Path, spec: RimSpec, question: str, block: int, tokens: list[int]) -> Any:
    """Float64 rows for each token of an answer, by a plain run of everything."""
    model = _native.Model(str(path))
    prompt = model.tokenize(f"Question: {question}\nAnswer:")
    whole = [*prompt, *list(spec.block_tokens) * block, *tokens]
    first = len(whole) - len(tokens) - 1
    options = _native.SessionOptions(n_ctx=1024, cache_type="f32", flash_attention="off", n_threads=1)
    rows = _native.batch_logits(model, whole, options, list(range(first, len(whole)))).astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))


@pytest.mark.parametrize(("kind", "tolerance"), [("bf16", 1e-3), ("q4_k_m", 0.2)])
def test_divergence_is_that_of_plain_runs(  # up to how far libllama's quantized products depend on a pass's width
    swept: dict[str, Any], source: Path, data: Path, folder: Path, kind: str, tolerance: float
) -> None:
    question = json.loads(data.read_text().splitlines()[3])["question"]
    (row,) = [row for row in answers(folder / "swept", f"types/{kind}") if row["line"] == 4]
    (given,) = [row for row in answers(folder / "swept", "reference") if row["line"] == 4]
    other = folder / "swept" / f"tiny-{kind}.gguf"
    assert [readout["block"] for readout in row["readouts"]] == [0, 1, 2, 3, 4]
    for readout, answer in zip(row["readouts"], given["readouts"], strict=True):
        tokens, block = answer["tokens"], readout["block"]
        p = plain_log_probabilities(source, SPEC, question, block, tokens)
        q = plain_log_probabilities(other, SPEC, question, block, tokens)
        rows = len(tokens) + answer["ended"]
        expected = (np.exp(p) * (p - q)).sum(axis=1)[:rows]
        np.testing.assert_allclose(readout["kl"], expected, rtol=tolerance, atol=1e-4)
        if kind == "bf16":
            best = [int(np.argmax(line)) for line in p[: len(tokens)]]
            assert sum(a == b for a, b in zip(best, tokens, strict=True)) >= len(tokens) - 1  # but for silent tokens


def test_numbers_are_those_of_the_rows(swept: dict[str, Any], folder: Path) -> None:
    given = answers(folder / "swept", "reference")
    for entry in swept["types"]:
        rows = given if entry["reference"] else answers(folder / "swept", f"types/{entry['type']}")
        for i, readout in enumerate(entry["quality"]["readouts"]):
            right = [_first_letter(row["readouts"][i]["text"]) == row["answer"] for row in rows]
            before = [_first_letter(row["readouts"][i]["text"]) == row["answer"] for row in given]
            assert readout["accuracy"]["k"] == sum(right)
            if entry["reference"]:
                continue
            values = [value for row in rows for value in row["readouts"][i]["kl"]]
            assert readout["kl"]["mean"] == pytest.approx(np.mean(values))
            assert readout["kl"]["p99"] == pytest.approx(np.quantile(values, 0.99))
            assert readout["accuracy"]["right_to_wrong"] == sum(b and not a for a, b in zip(right, before, strict=True))
        any_right = [any(r["right"] for r in row["readouts"] if r["block"]) for row in rows]
        assert entry["quality"]["any_block"]["k"] == sum(any_right)
        assert set(entry["quality"]["selections"]) == {"final", "vote", "confidence", "probe"}
        best = [max(row["readouts"][1:], key=lambda r: (r["probe"], r["block"])) for row in rows]
        assert entry["quality"]["selections"]["probe"]["k"] == sum(r["right"] for r in best)


def _first_letter(text: str) -> str | None:
    return next((letter for letter in text if "a" <= letter <= "z"), None)


def test_files_say_what_is_in_them(swept: dict[str, Any], folder: Path) -> None:
    by_type = {entry["type"]: entry for entry in swept["types"]}
    assert [entry["type"] for entry in swept["types"]] == ["f32", "bf16", "q4_k_m"]
    file = by_type["q4_k_m"]["file"]
    assert file["recipe"]["type"] == "q4_k_m" and file["fallbacks"] == []
    assert {"q4_k", "q6_k", "f32"} == set(file["tensor_types"])
    assert file["size_bytes"] == (folder / "swept" / file["name"]).stat().st_size
    head = _native.GgufFile(str(folder / "swept" / file["name"])).metadata
    assert RimSpec.from_gguf(head, 256).block_count == SPEC.block_count
    assert swept["floor"]["mean"] < 1e-6  # F32 everywhere: passes of any width agree


# ---- going on -------------------------------------------------------------------------------------------------------


def test_a_second_run_does_nothing_again_and_says_the_same(
    swept: dict[str, Any], source: Path, data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convert.sweep import files, run

    def never(*_: object, **__: object) -> None:
        raise AssertionError("done again")

    monkeypatch.setattr(files, "quantize_file", never)
    monkeypatch.setattr(run, "compared_rows", never)
    options = SweepOptions(source, data, folder / "swept", ("bf16", "q4_k_m"), rounds=0, settings=EXACT)
    again = Sweep(options, Watch()).run()
    assert without_machine(again) == without_machine(swept)


def without_machine(report: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in report.items() if key != "machine"}


def test_two_sweeps_make_the_same_files_and_numbers(
    swept: dict[str, Any], source: Path, data: Path, tmp_path: Path
) -> None:
    options = SweepOptions(source, data, tmp_path / "other", ("q4_k_m",), rounds=0, settings=EXACT)
    other = Sweep(options, Watch()).run()["types"][1]
    mine = swept["types"][2]
    assert other["file"] == mine["file"] and other["quality"] == mine["quality"]


def test_killed_and_run_again(source: Path, data: Path, tmp_path: Path) -> None:
    arguments = [source, "--data", data, "--types", "q8_0", "q4_0", *FAST]
    start = [sys.executable, str(SCRIPT), *map(str, arguments), "--out"]
    done = subprocess.run([*start, str(tmp_path / "whole")], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    killed = tmp_path / "killed"
    for part in ("reference/answers.jsonl", "types/q8_0/answers.jsonl", "types/q4_0/file.json"):
        process = subprocess.Popen([*start, str(killed)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (killed / part).exists() and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with open(killed / "reference/answers.jsonl", "ab") as file:
        file.write(b'{"line": 9, "rea')
    done = subprocess.run([*start, str(killed)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    reports = [json.loads((tmp_path / name / "sweep.json").read_text()) for name in ("whole", "killed")]
    assert without_machine(reports[0]) == without_machine(reports[1])
    assert [path.name for path in killed.iterdir() if path.name.startswith(".")] == []


def test_ctrl_c_keeps_what_is_finished(source: Path, tmp_path: Path) -> None:
    out, data = tmp_path / "out", tmp_path / "many.jsonl"
    data.write_text("".join(f'{{"question": "Tom has {i} apples", "answer": "a"}}\n' for i in range(500)))
    command = [sys.executable, str(SCRIPT), source, "--data", data, "--out", out, "--types", "q8_0,q4_0", *FAST]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (out / "types/q8_0/answers.jsonl").exists() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "Error: interrupted"
    assert "the same command goes on" in said
    assert (out / "types/q8_0/file.json").exists() and not (out / "sweep.json").exists()


def test_another_sweep_is_refused(swept: dict[str, Any], source: Path, data: Path, folder: Path) -> None:
    result = run(source, "--data", data, "--out", folder / "swept", "--types", "q8_0", *FAST)
    assert result.exit_code == 2
    assert (
        "holds another sweep, what differs: " in result.stderr and "--cache-type (f32 before, f16 now)" in result.stderr
    )
    assert not (folder / "swept" / "tiny-q8_0.gguf").exists()


# ---- the command ----------------------------------------------------------------------------------------------------


def test_reports_of_a_whole_sweep(source: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sweep = ["--data", data, "--out", out, "--types", "q4_0", "q8_0", "--rounds", 2, "--slots", "--discard"]
    calibration = ["--calibrate", data, "--save-imatrix", tmp_path / "m.gguf"]
    result = run(source, *sweep, *calibration, "--max-tokens", 4, "--threads", 1)
    assert result.exit_code == 0, result.stderr
    report = json.loads((out / "sweep.json").read_text())
    assert report["schema"] == 1 and [entry["type"] for entry in report["types"]] == ["f32", "q8_0", "q4_0"]
    for entry in report["types"]:
        assert entry["speed"]["rounds"] == 2 and entry["speed"]["ttft_rim_ms"]["n"] == 2
        assert entry["speed"]["peak_rss_bytes"]["median"] > 1e6
    assert report["types"][1]["file"]["recipe"]["importance"] == report["importance"]["sha256"]
    assert report["slots"]["q4_0"]["kl"]["mean"] > report["slots"]["q8_0"]["kl"]["mean"] > 0
    assert not list(out.glob("*.gguf")) or [path.name for path in out.glob("*.gguf")] == ["importance.gguf"]
    assert (tmp_path / "m.gguf").read_bytes() == (out / "importance.gguf").read_bytes()
    rows = list(csv.DictReader((out / "sweep.csv").open()))
    assert [row["readout"] for row in rows if row["type"] == "q4_0"] == ["0", "1", "2", "3", "4", "all"]
    page = (out / "sweep.html").read_text()
    assert "http" not in page and "<script" not in page and page.count("<svg") == 4
    assert (out / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert report["recommendation"]["sentence"] in result.stdout


def test_data_without_answers(source: Path, tmp_path: Path) -> None:
    data = tmp_path / "questions.jsonl"
    data.write_text('{"question": "how many apples"}\n')
    result = run(source, "--data", data, "--out", tmp_path / "out", "--types", "q8_0", *FAST)
    assert result.exit_code == 0, result.stderr
    assert "the data has no answers" in result.stderr and "right %" not in result.stdout
    assert "% of 1 answers are the same" in result.stdout or "f32" in result.stdout
    refused = run(source, "--data", data, "--out", tmp_path / "x", "--calibrate", data, *FAST)
    assert refused.exit_code == 2 and "questions.jsonl, line 1: no answer" in refused.stderr


def test_a_plain_model_has_its_direct_readout(data: Path, tmp_path: Path) -> None:
    for arch in ("llama", "mamba"):
        source = make_model(tmp_path / f"{arch}.gguf", arch, n_embd=256, spec=None)
        result = run(source, "--data", data, "--out", tmp_path / arch, "--types", "q8_0", "--limit", 3, *FAST)
        assert result.exit_code == 0, result.stderr
        assert "the direct readout only: the model has no memory-slot metadata" in result.stderr.replace("\n", " ") or (
            "direct readout only" in result.stderr
        )
        report = json.loads((tmp_path / arch / "sweep.json").read_text())
        assert report["readouts"] == [0] and report["types"][1]["quality"]["kl"]["mean"] > 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--types", "q9_x"], 2, "file type 'q9_x' is unknown"),
        (["--tensor-type", "nothing=q8_0"], 2, "finds no tensor"),
        (["--tensor-type", "q8_0"], 2, "REGEX=TYPE"),
        (["--types", "iq2_xxs"], 2, "without an importance matrix"),
        (["--blocks", "9"], 2, "runs 0 to 8"),
        (["--imatrix", "missing.gguf"], 1, "missing.gguf"),
        (["--type", "q4_0"], 2, "--output is missing beside --type"),
        (["--calibrate", "a", "--imatrix", "b"], 2, "give one of them"),
    ],
)
def test_refusals(source: Path, data: Path, tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    result = run(source, "--data", data, "--out", tmp_path / "out", *FAST, *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr
    assert not list(tmp_path.glob("out/*.gguf"))


def test_malformed_data_is_named_by_its_line(source: Path, tmp_path: Path) -> None:
    data = tmp_path / "bad.jsonl"
    data.write_text('{"question": "a", "answer": "b"}\n{"question": \n')
    result = run(source, "--data", data, "--out", tmp_path / "out", *FAST)
    assert result.exit_code == 1 and "bad.jsonl, line 2" in result.stderr
    assert not (tmp_path / "out").exists()


def test_no_room_is_told_before_any_work(
    source: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    result = run(source, "--data", data, "--out", tmp_path / "out", "--types", "q8_0", *FAST)
    assert result.exit_code == 1 and "1.0 MB are free" in result.stderr
    assert not list((tmp_path / "out").glob("**/*.gguf"))


def test_a_single_file(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "one.gguf"
    result = run(source, "--type", "Q4_K_M", "-o", output, "--tensor-type", "ffn_down=q8_0", "--threads", 1)
    assert result.exit_code == 0, result.stderr
    kinds = {tensor.name: tensor.type for tensor in _native.GgufFile(str(output)).tensors}
    assert kinds["blk.0.ffn_down.weight"] == "Q8_0" and kinds["blk.0.ffn_up.weight"] == "Q4_K"
    assert "bits per weight" in result.stdout
    again = run(source, "--type", "q4_k_m", "-o", output)
    assert again.exit_code == 1 and "exists" in again.stderr
    assert os.listdir(tmp_path) == ["one.gguf"]


def test_silent_fallbacks_are_said(data: Path, tmp_path: Path) -> None:
    source = make_model(tmp_path / "narrow.gguf", n_embd=64, spec=default_spec())
    result = run(source, "--type", "q4_k_m", "-o", tmp_path / "out.gguf")
    assert result.exit_code == 0, result.stderr
    assert "instead of q4_k" in result.stderr
