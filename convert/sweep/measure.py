"""The rows of one type: every readout's answer to every problem, and its distance to the reference at each token.

The reference's greedy answers are given to both models, which are loaded side by side and led through them in passes of
the same kind; only the distances are kept, never the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rim_edge.evaluation.answers import equal, extract
from rim_edge.evaluation.data import Problem

from .asking import Given, Runner, Target, Thought
from .divergence import divergence, summarize
from .rows import Row, RowFile

Advance = Callable[[int], None]  # gets the number of problems done
Prompts = Callable[[Sequence[Problem]], list[list[int]]]


def reference_rows(runner: Runner, problems: Sequence[Problem], prompts: Prompts, file: RowFile, done: Advance) -> None:
    """Fill ``file`` with the reference's own answers."""
    for part in _batches(problems, len(file.rows), runner.batch):
        tokens = prompts(part)
        own: dict[Target, Given] = {}
        for depth in runner.passes:
            own |= runner.think(tokens, depth).answers()
        file.append([_row(problem, runner, own, lane, {}) for lane, problem in enumerate(part)])
        done(len(file.rows))


def compared_rows(
    reference: Runner,
    runner: Runner,
    problems: Sequence[Problem],
    prompts: Prompts,
    given: Sequence[Row],
    file: RowFile,
    done: Advance,
    *,
    answers: bool = True,
    without: Sequence[int] = (),
) -> None:
    """Fill ``file`` with the answers of ``runner``, each readout with its distances to ``reference``.

    Args:
        given: rows of :func:`reference_rows` for the same problems.
        answers: let ``runner`` answer by itself too.
        without: tokens that are left out of both distributions.
    """
    for part in _batches(problems, len(file.rows), runner.batch):
        first = len(file.rows)
        tokens = prompts(part)
        found: dict[Target, dict[str, Any]] = {}
        own: dict[Target, Given] = {}
        for depth in runner.passes:
            ours, theirs = runner.think(tokens, depth), reference.think(tokens, depth)
            if answers:
                own |= ours.answers()
            wanted = {target: _given(given[first + target[0]], target[1]) for target in ours.targets}
            found |= _distances(theirs, ours, wanted, without)
        file.append([_row(problem, runner, own, lane, found) for lane, problem in enumerate(part)])
        done(len(file.rows))


def _distances(
    theirs: Thought, ours: Thought, answers: Mapping[Target, Given], without: Sequence[int]
) -> dict[Target, dict[str, Any]]:
    """``kl`` (nats) and ``top`` (1: the same greedy token) for each token of ``answers``, by readout."""
    found: dict[Target, dict[str, Any]] = {target: {"kl": [], "top": []} for target in answers}
    for expected, said in zip(theirs.led(answers), ours.led(answers), strict=True):
        for target, reference in expected.items():
            mine = said[target]
            assert reference.logits is not None and mine.logits is not None
            found[target]["kl"].append(divergence(reference.logits, mine.logits, without))
            found[target]["top"].append(int(reference.token == mine.token))
    return found


def floor(runner: Runner, problems: Sequence[Problem], prompts: Prompts, given: Sequence[Row]) -> dict[str, Any]:
    """What the same model differs from itself where the same tokens run in passes of another width.

    libllama's results depend on that a little; distances between types far below this say nothing. The first batch of
    problems, each answer of the reference in a plain run of its own against the pass that the sweep measures in.
    """
    part = problems[: runner.batch]
    tokens = prompts(part)
    groups: list[list[float]] = [[] for _ in part]
    for depth in runner.passes:
        thought = runner.think(tokens, depth)
        answers = {target: _given(given[target[0]], target[1]) for target in thought.targets}
        rows = {target: runner.plain(tokens[target[0]], target[1], answer) for target, answer in answers.items()}
        for step, said in enumerate(thought.led(answers)):
            for target, mine in said.items():
                assert mine.logits is not None
                groups[target[0]].append(divergence(rows[target][step], mine.logits))
    return summarize(groups)


# ---- rows -----------------------------------------------------------------------------------------------------------


def _batches(problems: Sequence[Problem], done: int, size: int) -> Iterator[Sequence[Problem]]:
    for first in range(done, len(problems), size):
        yield problems[first : first + size]


def _row(
    problem: Problem,
    runner: Runner,
    own: Mapping[Target, Given],
    lane: int,
    distances: Mapping[Target, Mapping[str, Any]],
) -> Row:
    """One line: the problem, and every readout with its answer and its distances."""
    spec, suite = runner.backend.spec, runner.settings.suite
    pattern = spec.answer_pattern if spec else None
    readouts = []
    for block in runner.blocks:
        readout: dict[str, Any] = {"block": block}
        if answer := own.get((lane, block)):
            final = extract(answer.text, suite, pattern=pattern)
            readout |= {
                "text": answer.text,
                "given": final,
                "right": None if problem.answer is None else equal(final, problem.answer, suite),
                "value": answer.value,
                "confidence": answer.confidence,
                "probe": answer.probe,
                "tokens": list(answer.tokens),
                "ended": answer.ended,
            }
        readouts.append(readout | dict(distances.get((lane, block), {})))
    return {"line": problem.line, "answer": problem.answer, "readouts": readouts}


def _given(row: Row, block: int) -> Given:
    """The answer in a row of the reference."""
    readout = next(readout for readout in row["readouts"] if readout["block"] == block)
    return Given(tuple(readout["tokens"]), readout["ended"], readout["text"], None, None, None)
