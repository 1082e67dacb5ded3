"""Batches for a GPU: packed and padded they mean the same; the GPU's steps where there is one."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from train.curriculum import Sample, grounding, lay_out, loss_sum, pointers, refinement
from train.data import draw
from train.graph import Ahead, Arrays, arrays_of, batch_from, padded, shape_for
from train.model import Llama, ModelConfig
from train.run import Options, Run, arrays_for, batch_of, main
from train.tokenizer import Vocabulary, build_json


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(build_json())


@pytest.fixture(scope="module")
def model(vocabulary: Vocabulary) -> Llama:
    model = Llama(ModelConfig(len(vocabulary), 64, 64, 8, 4, 2))
    model.initialise(0)
    return model


def samples_of(vocabulary: Vocabulary) -> list[Sample]:
    rng = random.Random(5)
    samples = []
    for n_steps in (1, 2, 3, 4, 5, 2, 3):
        made = draw(rng, "train", n_steps, kind="relations-in-order")
        facts = vocabulary.encode(made.facts)
        branches = [grounding(made, vocabulary, 0.0, 0.5), *(refinement(p, vocabulary, 0.3) for p in made.others[:2])]
        samples.append(Sample(facts, branches, pointers(made, facts, vocabulary, 0.2)))
    return sorted(samples, key=lambda sample: -sample.length)


def test_packed_rows_give_the_same_loss(model: Llama, vocabulary: Vocabulary) -> None:
    samples = samples_of(vocabulary)
    batch = lay_out(samples, vocabulary, 512)
    assert batch.tokens.shape[1] == 512
    assert batch.tokens.shape[0] < len(samples)
    torch.testing.assert_close(loss_sum(model, batch), loss_sum(model, lay_out(samples, vocabulary)))


def test_padding_changes_nothing(model: Llama, vocabulary: Vocabulary) -> None:
    samples = samples_of(vocabulary)
    arrays = arrays_of(samples, vocabulary, 512, len(model.layers))
    larger = shape_for(arrays_of(samples + samples, vocabulary, 512, len(model.layers)), None)
    shape = shape_for(arrays, larger)
    assert shape == larger  # what fits is not recorded anew
    total = sum(sample.total_weight for sample in samples)
    expected = loss_sum(model, lay_out(samples, vocabulary)) / total
    for padding in (shape, shape_for(arrays, None)):
        ints, floats = padded(arrays, padding)
        batch = batch_from(torch.from_numpy(ints), torch.from_numpy(floats), padding)
        torch.testing.assert_close(loss_sum(model, batch), expected)


def test_a_shape_grows_to_hold_both() -> None:
    def made(rows: int, targets: dict[int, int]) -> Arrays:
        taps = {
            layer: (np.zeros(n, np.int32), np.zeros(n, np.int32), np.zeros(n, np.float32))
            for layer, n in targets.items()
        }
        return Arrays(np.zeros((6, rows, 64), np.int32), taps, 1)

    first = shape_for(made(10, {0: 100, 3: 10}), None)
    second = shape_for(made(8, {0: 400, 4: 1}), first)
    assert second[0] == first[0] >= 10
    assert dict(second[2])[0] >= 400
    assert dict(second[2])[3] == dict(first[2])[3]
    assert dict(second[2])[4] >= 1
    assert shape_for(made(10, {0: 100, 3: 10}), second) == second


def test_a_sample_longer_than_a_row_is_refused(vocabulary: Vocabulary) -> None:
    with pytest.raises(ValueError, match="use longer rows"):
        lay_out(samples_of(vocabulary), vocabulary, 64)


OPTIONS = Options("unused", batch_positions=600, piece_positions=512, steps=10)


def test_batches_come_in_order_and_are_those_of_the_cpu(vocabulary: Vocabulary) -> None:
    ahead = Ahead(arrays_of_step, 2, begin=3)
    try:
        found = [ahead.take(lambda step: step / 10) for _ in range(4)]
    finally:
        ahead.close()
    for step, arrays in enumerate(found, start=3):
        pieces = batch_of(OPTIONS, vocabulary, step, step / 10)
        assert arrays.questions == sum(len(sample.branches) for piece in pieces for sample in piece)
        assert (arrays.places[2] >= 0).sum() == sum(sample.length for piece in pieces for sample in piece)


def arrays_of_step(step: int, progress: float) -> Arrays:
    return arrays_for(OPTIONS, step, progress)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_learns_what_the_cpu_learns(tmp_path: Path) -> None:
    shape = [
        "--steps",
        "40",
        "--batch-positions",
        "1500",
        "--piece-positions",
        "512",
        "--layers",
        "2",
        "--hidden",
        "64",
    ]
    assert main(["-o", str(tmp_path / "cpu"), *shape]) == 0
    assert main(["-o", str(tmp_path / "gpu"), *shape, "--device", "cuda"]) == 0
    options = [replace(OPTIONS, output=str(tmp_path / name), layers=2, hidden=64) for name in ("none", "cpu", "gpu")]
    start, on_cpu, on_gpu = (Run(option, 0) for option in options)
    assert (on_cpu.step, on_cpu.samples) == (on_gpu.step, on_gpu.samples) == (40, on_cpu.samples)
    moved = [
        torch.cat(
            [(now - then).flatten() for now, then in zip(run.model.parameters(), start.model.parameters(), strict=True)]
        )
        for run in (on_cpu, on_gpu)
    ]
    assert torch.nn.functional.cosine_similarity(*moved, dim=0) > 0.98


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_command_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-o", str(tmp_path / "run"), "--device", "cuda"]) == 1
    assert "sees no CUDA device" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
