"""From a training run to files and back: run, continue, export, convert, run in libllama, restore."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from convert.families.llama import to_halves, to_neighbours
from convert.hf_folder import ConvertError
from convert.to_gguf import convert
from convert.to_gguf import main as to_gguf
from train.checkpoint import rounded
from train.curriculum import BLOCK_COUNT
from train.data import draw
from train.export import main as export
from train.lexicon import words
from train.model import Llama, ModelConfig
from train.restore import main as restore
from train.tokenizer import Vocabulary, build_json

ROOT = Path(__file__).parents[2]
SMALL = ["--layers", "2", "--hidden", "32", "--ffn", "32", "--heads", "2", "--kv-heads", "1", "--workers", "1"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a small random model, as train.run writes it."""
    vocabulary = Vocabulary(build_json())
    config = ModelConfig(len(vocabulary), 64, 96, 2, 4, 2)
    model = Llama(config)
    model.initialise(3)
    folder = tmp_path_factory.mktemp("run")
    saved = {
        "model": model.state_dict(),
        "average": None,
        "config": config.as_dict(),
        "tokenizer": vocabulary.tokenizer_json,
        "stage": 2,
        "samples": 0,
        "step": 0,
    }
    torch.save(saved, folder / "checkpoint.pt")
    return folder


@pytest.fixture(scope="module")
def gguf_file(checkpoint: Path) -> Path:
    assert export([str(checkpoint), "-o", str(checkpoint / "hf")]) == 0
    assert to_gguf([str(checkpoint / "hf"), "-o", str(checkpoint / "model.gguf")]) == 0
    return checkpoint / "model.gguf"


def test_restoring_and_converting_again_gives_the_same_bytes(checkpoint: Path, gguf_file: Path, tmp_path: Path) -> None:
    assert restore([str(gguf_file), "-o", str(tmp_path / "hf")]) == 0
    for name in os.listdir(checkpoint / "hf"):
        assert (tmp_path / "hf" / name).read_bytes() == (checkpoint / "hf" / name).read_bytes(), name
    convert(tmp_path / "hf", tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == gguf_file.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.gguf", "hf"]


def test_libllama_and_the_training_code_agree(checkpoint: Path, tmp_path: Path) -> None:
    import llama_cpp

    assert export([str(checkpoint), "-o", str(tmp_path / "hf")]) == 0
    convert(tmp_path / "hf", tmp_path / "f32.gguf", "f32")
    saved = torch.load(checkpoint / "checkpoint.pt", weights_only=True)
    vocabulary = Vocabulary(saved["tokenizer"])
    model = Llama(ModelConfig(**saved["config"]))
    model.load_state_dict(rounded(saved["model"]))
    tokens = vocabulary.encode(draw(random.Random(2), "test", 3).question) + vocabulary.block * BLOCK_COUNT

    f32 = 0
    llama = llama_cpp.Llama(
        str(tmp_path / "f32.gguf"), n_ctx=256, n_threads=1, verbose=False, logits_all=True, type_k=f32, type_v=f32
    )
    llama.eval(tokens)
    theirs = np.array(llama.scores[: len(tokens)])
    mask = torch.full((len(tokens), len(tokens)), float("-inf")).triu(1)[None, None]
    with torch.no_grad():
        hidden = model.hidden(torch.tensor([tokens]), torch.arange(len(tokens))[None], mask)
        ours = model.logits(hidden)[0].numpy()
    np.testing.assert_allclose(theirs, ours, atol=2e-4)


def test_both_tokenizers_give_the_same_ids(gguf_file: Path) -> None:
    import llama_cpp
    import tokenizers

    text = build_json()
    full, fast = tokenizers.Tokenizer.from_str(text), Vocabulary(text)
    llama = llama_cpp.Llama(str(gguf_file), vocab_only=True, verbose=False)

    def native(line: str) -> list[int]:
        return list(llama.tokenize(line.encode(), add_bos=True, special=False))

    rng = random.Random(4)
    for n_steps in (1, 2, 3, 4, 5) * 20:
        question = draw(rng, "train", n_steps).question
        assert native(question) == full.encode(question).ids == fast.encode(question)
        assert full.decode(fast.encode(question)) == question
    for foreign in ("Zebra xylophone 123 foo's, it's  two  spaces", "tab\tnew\n\nline", "ünïcödé 日本語 12.5$ !?"):
        assert native(foreign) == full.encode(foreign).ids
    assert all(fast.is_known(word) for word in words())
    assert not fast.is_known("zebra")


def test_reordering_of_rotary_rows_is_undone() -> None:
    data = np.arange(8 * 3, dtype=np.float32).reshape(8, 3)
    assert to_neighbours(data, 2)[:4, 0].tolist() == [0.0, 6.0, 3.0, 9.0]
    np.testing.assert_array_equal(to_halves(to_neighbours(data, 2), 2), data)


def test_an_existing_file_is_kept_and_bad_folders_are_one_line(
    gguf_file: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = gguf_file.read_bytes()
    assert to_gguf([str(checkpoint / "hf"), "-o", str(gguf_file)]) == 1
    assert gguf_file.read_bytes() == before
    assert to_gguf([str(tmp_path), "-o", str(tmp_path / "x.gguf")]) == 1
    assert to_gguf([str(tmp_path / "missing"), "-o", str(tmp_path / "x.gguf")]) == 1
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(ConvertError, match="mamba"):
        convert(tmp_path, tmp_path / "x.gguf")
    (tmp_path / "bad.gguf").write_bytes(b"<html>")
    assert restore([str(tmp_path / "bad.gguf"), "-o", str(tmp_path / "hf")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 4
    assert not (tmp_path / "x.gguf").exists()


def test_converter_runs_as_a_file(checkpoint: Path, gguf_file: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "convert" / "to_gguf.py"),
        str(checkpoint / "hf"),
        "-o",
        str(tmp_path / "m.gguf"),
    ]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert (tmp_path / "m.gguf").read_bytes() == gguf_file.read_bytes()


def test_interrupt_writes_a_checkpoint_from_which_the_run_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "train.run", "-o", str(tmp_path), *SMALL]
    with subprocess.Popen([*command, "--minutes", "30"], cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "log.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
    first = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert first["samples"] > 0

    subprocess.run(
        [*command, "--minutes", str(first["elapsed_s"] / 60 + 0.05)], cwd=ROOT, check=True, capture_output=True
    )
    second = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert second["samples"] > first["samples"]
    assert second["stage"] == 2
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert "any" in lines[-1]["evaluation"]["2"]
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
