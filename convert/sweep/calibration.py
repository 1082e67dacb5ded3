"""The importance matrix of a sweep or of a single file: read, or collected from questions with answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rim_edge.errors import OptionError
from rim_edge.evaluation.data import Problem, read_problems
from rim_edge.evaluation.suites import fill, find_suite

from ..quantization.calibrate import collect_importance
from ..quantization.importance import ImportanceMatrix
from .plan import Calibration


def calibration_problems(calibration: Calibration, suite: str | None) -> list[Problem]:
    """The questions to collect on. Raises DataError, and OptionError where one has no answer."""
    assert calibration.data is not None
    problems = read_problems(calibration.data, suite)
    for problem in problems:
        if problem.answer is None:
            raise OptionError(
                f"{calibration.data}, line {problem.line}: no answer; --calibrate needs questions with answers"
            )
    return problems


def collect(
    source: Path,
    calibration: Calibration,
    problems: list[Problem],
    suite: str | None,
    n_threads: int | None,
    progress: Callable[[int, int], None] | None,
) -> ImportanceMatrix:
    """Run the problems through the model. Raises as ``collect_importance`` does."""
    prompt = find_suite(suite).prompt
    return collect_importance(
        source,
        [{"question": fill(prompt, p.question, p.choices), "answer": p.answer} for p in problems],
        blocks=0 if calibration.text_only else None,
        slot_weight=calibration.slot_weight,
        n_threads=n_threads or 0,
        progress=progress,
        dataset=calibration.data.name if calibration.data else "problems",
    )
