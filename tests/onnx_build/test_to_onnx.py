"""Conversion to ONNX: every family against PyTorch at every readout, quantized graphs, and what is refused."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from checkpoints import MEMORY_TEXTS, torch_logits, write_checkpoint
from rim_edge.convert.failure import ConvertError
from rim_edge.convert.to_onnx import convert, main

import rim_edge
from rim_edge.backends import open_backend
from rim_edge.backends.base import LoadOptions

PROMPT = [5, 17, 250, 33, 9, 201, 77, 140, 6, 300, 42, 11, 190, 8, 256, 91, 63, 27]
FAMILIES = ["llama", "smollm", "qwen2", "qwen3", "gemma3"]
RELATIVE = ("gemma3",)  # to the logits' range, as for GGUF


@pytest.fixture(scope="module")
def smollm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smollm")
    write_checkpoint(folder / "hf", "smollm")
    convert(folder / "hf", folder / "onnx")
    return folder


def never_sampled(folder: Path, n_rows: int) -> list[int]:
    """Control tokens that end no answer, and rows of the head without a token."""
    parsed = json.loads((folder / "tokenizer.json").read_text())
    added = {token["id"]: token["special"] for token in parsed["added_tokens"]}
    ids = {*parsed["model"]["vocab"].values(), *added} if isinstance(parsed["model"]["vocab"], dict) else set(added)
    ends = json.loads((folder / "genai_config.json").read_text())["model"]["eos_token_id"]
    controls = {token for token, special in added.items() if special} - set(ends)
    return sorted(controls | (set(range(n_rows)) - ids))


@pytest.mark.parametrize("family", FAMILIES)
def test_readouts_equal_pytorch(family: str, tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "hf", family)
    assert convert(tmp_path / "hf", tmp_path / "onnx") == []
    backend = open_backend(tmp_path / "onnx", LoadOptions(n_threads=1))
    spec = backend.spec
    assert spec is not None and spec.has_probe and backend.info.architecture == {"smollm": "llama"}.get(family, family)
    session = backend.open(512, 1, blocks=True)
    (states,) = session.think([PROMPT], spec.block_count, hidden=True, logits=True)
    tokens = [*PROMPT, *list(spec.block_tokens) * spec.block_count]
    ends = [len(PROMPT) - 1 + spec.block_width * (k + 1) for k in range(spec.block_count)]
    expected = torch_logits(model, tokens, ends)
    found = np.stack([state.logits for state in states if state.logits is not None])
    scale = float(expected.max() - expected.min()) if family in RELATIVE else 1.0
    assert np.abs(found - expected).max() <= 1e-3 * scale
    assert (found.argmax(1) == expected.argmax(1)).all()
    import torch

    with torch.no_grad():
        hidden = model(torch.tensor([tokens]), output_hidden_states=True).hidden_states[-1][0, ends].numpy()
    assert np.abs(np.stack([state.hidden for state in states if state.hidden is not None]) - hidden).max() < 1e-2
    # answers that go on in rows of their own, past a sliding window too
    (answer,) = session.decode([(0, 2)], rim_edge.backends.base.Sampling(), 20)
    text = PROMPT + list(spec.block_tokens) * 2
    never = never_sampled(tmp_path / "onnx", expected.shape[1])
    for token in answer.tokens:
        logits = torch_logits(model, text, [len(text) - 1])[0].copy()
        logits[never] = -np.inf
        assert logits[token] >= logits.max() - 1e-3 * scale
        text.append(token)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantized_graphs_run_and_are_smaller(smollm: Path, tmp_path: Path, precision: str) -> None:
    convert(smollm / "hf", tmp_path / "onnx", precision)
    with rim_edge.load(tmp_path / "onnx", n_threads=1) as model, rim_edge.load(smollm / "onnx", n_threads=1) as whole:
        assert precision in model.info.description and model.info.size_bytes < whole.info.size_bytes
        left, right = (m.ask("Tom has 3 apples", blocks=4, logits=True, max_tokens=2) for m in (model, whole))
        for a, b in zip(left.readouts, right.readouts, strict=True):
            assert a.logits is not None and b.logits is not None
            assert np.corrcoef(a.logits, b.logits)[0, 1] > (
                0.99 if precision == "int8" else 0.3
            )  # 4 bits of random weights are coarse


def test_plain_onnxruntime_opens_the_folder(smollm: Path) -> None:
    session = onnxruntime.InferenceSession(smollm / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["rim.version"] == "1" and metadata["rim.block_count"] == "4"
    feeds = {"input_ids": np.array([PROMPT]), "attention_mask": np.ones((1, len(PROMPT)), np.int64)}
    feeds["output_rows"] = np.array([0, -1])
    for value in session.get_inputs():
        if value.name.startswith("past"):
            feeds[value.name] = np.zeros((1, value.shape[1], 0, value.shape[3]), np.float32)
    logits, hidden = session.run(["logits", "hidden_states"], feeds)
    assert logits.shape == (1, 2, 512) and hidden.shape == (1, 2, 64)


def test_a_plain_model_gets_untrained_memory_blocks(smollm: Path, tmp_path: Path) -> None:
    plain = shutil.copytree(smollm / "hf", tmp_path / "plain")
    for name in ("rim_config.json", "rim_probe.safetensors"):
        (plain / name).unlink()
    (notice,) = convert(plain, tmp_path / "onnx", blocks=3, block_size=1)
    assert "memory" in notice
    with rim_edge.load(tmp_path / "onnx", n_threads=1) as model:
        assert model.spec is not None and (model.spec.block_count, model.spec.block_size) == (3, 1)
        assert model.ask("Tom", max_tokens=2).depth == 3
    convert(plain, tmp_path / "direct")
    with rim_edge.load(tmp_path / "direct", n_threads=1) as model:
        assert model.spec is None and model.ask("Tom", max_tokens=2).depth == 0


def test_gpt2_is_refused_by_name(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "hf", "gpt2")
    with pytest.raises(ConvertError, match="has no gpt2: convert this model to GGUF"):
        convert(tmp_path / "hf", tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_an_output_that_exists_stays_without_force(
    smollm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    arguments = [str(smollm / "hf"), "-o", str(tmp_path / "mine")]
    assert main(arguments) == 1 and "exists" in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 1 and "letter.txt" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["letter.txt"]
    other = shutil.copytree(smollm / "onnx", tmp_path / "other")
    before = (other / "genai_config.json").stat().st_ino
    assert main([str(smollm / "hf"), "-o", str(other)]) == 1
    assert main([str(smollm / "hf"), "-o", str(other), "--force"]) == 0
    assert (other / "genai_config.json").stat().st_ino != before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mine", "other"]


def test_weights_that_are_not_finite_are_named(smollm: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    broken = shutil.copytree(smollm / "hf", tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    tensors["model.norm.weight"][3] = np.nan
    save_file(tensors, broken / "model.safetensors")
    with pytest.raises(ConvertError, match=r"model\.norm\.weight"):
        convert(broken, tmp_path / "onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["broken"]


def test_a_stopped_conversion_leaves_nothing(smollm: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rim_edge.convert.to_onnx", str(smollm / "hf"), "-o", str(tmp_path / "onnx")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".onnx.*/source/tokenizer_config.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and said.strip() == "to_onnx: interrupted, nothing was written"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("room", [50_000, 500_000])  # full while the source is written, and while the graph is
def test_a_full_disk_leaves_the_old_folder(smollm: Path, tmp_path: Path, room: int) -> None:
    shutil.copytree(smollm / "onnx", tmp_path / "onnx")
    before = {file.name: file.read_bytes() for file in (tmp_path / "onnx").iterdir()}
    largest = (smollm / "hf" / "model.safetensors").stat().st_size
    limit = room if room < largest else largest + 1000
    done = subprocess.run(
        [sys.executable, "-m", "rim_edge.convert.to_onnx", str(smollm / "hf"), "-o", "onnx", "--force"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1
    assert done.stderr.startswith("to_onnx: ") and done.stderr.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["onnx"]
    assert {file.name: file.read_bytes() for file in (tmp_path / "onnx").iterdir()} == before


def test_memory_tokens_are_special_in_the_tokenizer(smollm: Path) -> None:
    parsed = json.loads((smollm / "onnx" / "tokenizer.json").read_text())
    special = {token["content"] for token in parsed["added_tokens"] if token["special"]}
    assert set(MEMORY_TEXTS) <= special
    config = json.loads((smollm / "onnx" / "genai_config.json").read_text())["model"]
    assert config["eos_token_id"] == [parsed["model"]["vocab"].get("<|endoftext|>", config["eos_token_id"][0])]
