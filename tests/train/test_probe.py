"""The probe is trained on what a model file does in the runtime."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import rim_edge
from rim_edge.model import BUNDLED
from tests.shapes import make_model
from train.data import generate, split_of
from train.probe import auroc, fit, main, states


def test_a_direction_that_tells_right_from_wrong_is_found() -> None:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(600, 2, 8, generator=generator)
    correct = hidden[:, :, 3] + 0.1 * torch.randn(600, 2, generator=generator) > 0.5
    weight, bias = fit(hidden[:400], correct[:400])
    scores = torch.einsum("nkd,kd->nk", hidden, weight) + bias
    for k in range(2):
        assert auroc(scores[400:, k], correct[400:, k]) > 0.98
        assert weight[k].abs().argmax() == 3
        predicted = torch.sigmoid(scores[400:, k]).mean().item()
        assert predicted == pytest.approx(correct[400:, k].float().mean().item(), abs=0.05)


def test_auroc() -> None:
    scores = torch.tensor([0.1, 0.4, 0.35, 0.8])
    assert auroc(scores, torch.tensor([False, False, True, True])) == pytest.approx(0.75)
    assert math.isnan(auroc(scores, torch.ones(4, dtype=torch.bool)))


def test_states_are_what_the_shipped_probe_scores() -> None:
    problems = list(generate("probe", (2, 5), 6, seed=3))
    assert {split_of(p.canonical) for p in problems} == {"probe"}
    with rim_edge.load(BUNDLED) as model:
        assert model.spec is not None and model.spec.probe_weight is not None and model.spec.probe_bias is not None
        hidden, correct = states(model, problems)
        answers = [model.ask(p.question, readouts=True) for p in problems]
        weight, bias = (torch.from_numpy(a.copy()) for a in (model.spec.probe_weight, model.spec.probe_bias))
    scores = torch.sigmoid(torch.einsum("nkd,kd->nk", hidden, weight) + bias)
    for problem, score, right, answer in zip(problems, scores, correct, answers, strict=True):
        assert right.tolist() == [r.value == str(problem.values[-1]) for r in answer.readouts]
        assert score.tolist() == pytest.approx([r.probe for r in answer.readouts], abs=2e-3)


def test_the_command_writes_a_probe_that_fits_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "rim_probe.safetensors"
    assert main([str(BUNDLED), "-o", str(output), "-n", "40", "--steps", "4-5"]) == 0
    probe = load_file(output)
    assert {name: tuple(tensor.shape) for name, tensor in probe.items()} == {"weight": (8, 256), "bias": (8,)}
    assert "probe's choice" in capsys.readouterr().out


def test_a_model_without_blocks_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "plain.gguf"
    make_model(model, spec=None)
    assert main([str(model), "-o", str(tmp_path / "p.safetensors")]) == 1
    assert "has no memory blocks" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [model]
