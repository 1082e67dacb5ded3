"""``rim-edge inspect`` and the memory estimate: what a file holds, what it claims, what it will need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from shapes import default_spec, make_model, random_probe

from rim_edge import _native, memory
from rim_edge.cli.app import cli
from rim_edge.cli.file_types import base_type, remarks

ARCHITECTURES = ("llama", "gpt2", "gemma3", "qwen3")


def inspect(path: Path | str, *arguments: str) -> str:
    result = CliRunner().invoke(cli, ["inspect", str(path), *arguments])
    assert (result.stderr, result.exit_code) == ("", 0)
    return result.stdout


def facts(path: Path | str, *arguments: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(inspect(path, "--json", *arguments))
    return value


def test_a_model_with_memory_blocks(tmp_path: Path) -> None:
    spec = default_spec(answer_prefix=" A:", source={"base": "none"}, trained_direct=True, **random_probe(8, 64))
    path = make_model(tmp_path / "rim.gguf", spec=spec, outtype="q8_0")
    found = facts(path)
    assert found["memory_slots"]["block_count"] == 4
    assert found["memory_slots"]["tokens"]["begin"]["text"] == "<|rim_begin|>"
    assert found["memory_slots"]["probe"] == [8, 64]
    assert found["memory_slots"]["source"] == {"base": "none"}
    assert found["runs"]["coupled_pass"] is True
    kernels = found["runs"]["kernels"]
    if kernels["reason"]:
        assert kernels["types"] == [] and kernels["instructions"] is None and not kernels["attention"]
    else:
        assert kernels["types"] == ["Q8_0"] and kernels["instructions"]
    assert found["vocabulary"]["chat_template"] is False
    assert sum(entry["size_bytes"] for entry in found["tensors"]["types"]) == found["memory"]["weights"]
    assert {entry["type"] for entry in found["tensors"]["types"]} == {"Q8_0", "F32"}
    assert found["tensors"]["remarks"] == []
    assert [entry["tokens"] for entry in found["memory"]["contexts"]] == [512, 2048, 4096, 32768]


def test_the_text_says_the_same(tmp_path: Path) -> None:
    lines = inspect(make_model(tmp_path / "rim.gguf")).splitlines()
    headings = [line for line in lines if line and not line.startswith(" ")]
    assert headings[1:] == ["memory slots", "model", "tensors", "runs on", "memory before loading"]
    text = "\n".join(lines)
    assert "blocks           4, at most 8\n" in text
    assert "block size       2 memory tokens: 4 positions a block, 16 in all\n" in text
    assert "coupled pass  yes: question, all blocks and their readouts in one forward pass\n" in text


def test_a_plain_model(tmp_path: Path) -> None:
    text = inspect(make_model(tmp_path / "plain.gguf", spec=None, chat_template=True))
    assert "none: no rim.* metadata, the model answers directly" in text
    assert "chat template    yes" in text


def test_a_recurrent_model_says_why_there_is_no_coupled_pass(tmp_path: Path) -> None:
    found = facts(make_model(tmp_path / "mamba.gguf", "mamba"))
    assert found["runs"]["coupled_pass"] is False
    assert "recurrent" in found["runs"]["reason"]
    assert len({entry["cache"] for entry in found["memory"]["contexts"]}) == 1  # the state does not grow


def test_claims_that_the_tensors_do_not_bear_out(tmp_path: Path) -> None:
    path = make_model(tmp_path / "model-Q4_K_M.gguf", outtype="q8_0", metadata={"general.file_type": 2})
    assert facts(path)["tensors"]["remarks"] == [
        "general.file_type says Q4_0, but most weights are Q8_0",
        "the file's name says Q4_K_M, but most weights are Q8_0",
    ]
    assert "  note: the file's name says Q4_K_M, but most weights are Q8_0\n" in inspect(path)


@pytest.mark.parametrize(
    ("mixture", "tensor"),
    [("Q4_K_M", "Q4_K"), ("Q2_K_S", "Q2_K"), ("Q6_K", "Q6_K"), ("IQ4_NL", "IQ4_NL")],
)
def test_mixtures_and_their_main_type(mixture: str, tensor: str) -> None:
    assert base_type(mixture) == tensor


def test_no_claim_no_remark(tmp_path: Path) -> None:
    path = str(make_model(tmp_path / "tiny.gguf", outtype="f32"))
    tensors = _native.GgufFile(path).tensors
    assert remarks(path, None, tensors) == []
    assert remarks("model-f32.gguf", 0, tensors) == []


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("cache_type", ["f16", "f32"])
def test_the_cache_is_as_large_as_estimated(tmp_path: Path, architecture: str, cache_type: str) -> None:
    path = str(make_model(tmp_path / "model.gguf", architecture, spec=None))
    file = _native.GgufFile(path)
    found = memory.estimate(file.metadata, file.tensors, cache_type=cache_type, contexts=[1000])
    options = _native.SessionOptions(n_ctx=1000, cache_type=cache_type, n_threads=1)
    session = _native.Session(_native.Model(path), None, options)
    try:
        assert session.memory["cache"] == found.cache[1000]
        assert 0.3 < session.memory["compute"] / found.compute[1000] < 3
    finally:
        session.close()


def test_one_line_for_a_file_that_cannot_be_inspected(tmp_path: Path) -> None:
    page = tmp_path / "page.gguf"
    page.write_text("<!DOCTYPE html><html></html>")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(make_model(tmp_path / "whole.gguf").read_bytes()[:100_000])
    broken = make_model(tmp_path / "broken.gguf", metadata={"rim.block_count": 0})
    for path, words in (
        (tmp_path / "none.gguf", "no such file"),
        (tmp_path, "is a directory"),
        (page, "it is a web page"),
        (cut, "the download is unfinished or the file is damaged"),
        (broken, "rim.block_count is 0, expected 1 to 256"),
    ):
        result = CliRunner().invoke(cli, ["inspect", str(path)])
        assert result.stderr.startswith(f"Error: {path}: ")
        assert words in result.stderr
        assert (result.stdout, result.stderr.count("\n"), result.exit_code) == ("", 1, 1)
