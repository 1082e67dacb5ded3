"""Asking: the questions in batches through one context, then a few of them one at a time for their times.

One pass with all readouts gives every depth (readout k sees blocks 1..k alone), every selection, any-block, and
adaptive depth (whose rule looks at the readouts so far).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rim_edge.errors import CancelledError, ContextFullError
from rim_edge.evaluation.answers import equal, extract
from rim_edge.evaluation.data import Problem
from rim_edge.evaluation.plan import FINAL, Plan, Settings, halting_depth
from rim_edge.evaluation.record import Record
from rim_edge.evaluation.suites import fill
from rim_edge.model import Model
from rim_edge.results import Answer, Readout
from rim_edge.selection import choose


@dataclass(frozen=True)
class Progress:
    """How far it is.

    Attributes:
        done, total: pieces of work, a question in one pass or one timed answer, those of former runs included.
        right: questions right so far, by pass (``rim``: the last block's readout).
        asked: questions asked so far, by pass.
        timing: whether the times are being taken.
    """

    done: int
    total: int
    right: dict[str, int]
    asked: dict[str, int]
    timing: bool = False


class Evaluator:
    """Asks what ``plan`` says of ``problems``, and writes each answer to ``record``. What is there already is kept."""

    def __init__(
        self,
        model: Model,
        problems: Sequence[Problem],
        plan: Plan,
        settings: Settings,
        record: Record,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """``stopped`` says whether the user wants the end; what was under way is then not written."""
        self._model, self._problems, self._plan, self._settings = model, problems, plan, settings
        self._record, self._stopped = record, stopped
        self._timed = problems[: settings.latency]
        lines = {problem.line for problem in problems}
        timed, modes = {problem.line for problem in self._timed}, {mode.name for mode in plan.modes}
        self._done = {(entry["pass"], entry["line"]) for entry in record.lines if entry["kind"] == "answer"}
        self._done_times = {(entry["mode"], entry["line"]) for entry in record.lines if entry["kind"] == "latency"}
        self._right = dict.fromkeys(plan.passes, 0)
        self._asked = dict.fromkeys(plan.passes, 0)
        for entry in record.lines:
            if entry["kind"] == "answer" and entry["line"] in lines and entry["pass"] in self._right:
                self._count(entry)
        self._total = len(problems) * len(plan.passes) + len(self._timed) * len(plan.modes)
        self._n_done = sum(self._asked.values()) + sum(
            mode in modes and line in timed for mode, line in self._done_times
        )

    def progress(self, timing: bool = False) -> Progress:
        """How far it is now."""
        return Progress(self._n_done, self._total, dict(self._right), dict(self._asked), timing)

    def run(self) -> Iterator[Progress]:
        """Do the work, giving the progress after each batch and each timed answer.

        Raises:
            CancelledError: stopped; the answers so far are in the record.
            RecordError: the file cannot be written.
            TemplateError, BackendError: the model cannot go on.
        """
        for first in range(0, len(self._problems), self._plan.lanes):
            part = self._problems[first : first + self._plan.lanes]
            for name in self._plan.passes:
                # the same batch as without an interruption, so that its width and with it the rounding are the same
                if all((name, problem.line) in self._done for problem in part):
                    continue
                entries = self._answers(name, part)
                self._check_stopped()
                for entry in entries:
                    if (name, entry["line"]) not in self._done:
                        self._record.append(entry)
                        self._count(entry)
                        self._n_done += 1
                yield self.progress()
        yield from self._times()

    def _count(self, entry: dict[str, Any]) -> None:
        self._asked[entry["pass"]] += 1
        self._right[entry["pass"]] += bool(entry["correct"])

    def _check_stopped(self) -> None:
        if self._stopped():
            raise CancelledError("interrupted")

    # ---- answers -----------------------------------------------------------------------------------------------------

    def _answers(self, name: str, part: Sequence[Problem]) -> list[dict[str, Any]]:
        plan, cot = self._plan, name == "cot"
        questions = [fill(plan.cot_prompt if cot else plan.prompt, p.question, p.choices) for p in part]
        options: dict[str, Any] = {
            "system": self._settings.system,
            "stop": self._settings.stop,
            "max_tokens": self._settings.cot_tokens if cot else plan.max_tokens,
            "blocks": plan.depth if name == "rim" else 0,
            "readouts": name == "rim",
        }
        return [
            self._entry(name, problem, answer)
            for problem, answer in zip(part, self._ask(questions, options), strict=True)
        ]

    def _ask(self, questions: Sequence[str], options: dict[str, Any]) -> list[Answer | ContextFullError]:
        self._check_stopped()
        try:
            return list(self._model.ask_many(questions, batch=len(questions), **options))
        except ContextFullError as error:
            if len(questions) == 1:
                return [error]
        return [found for question in questions for found in self._ask([question], options)]

    def _entry(self, name: str, problem: Problem, answer: Answer | ContextFullError) -> dict[str, Any]:
        entry: dict[str, Any] = {"kind": "answer", "pass": name, "line": problem.line}
        if problem.id is not None:
            entry["id"] = problem.id
        entry |= {"question": problem.question, "reference": problem.answer}
        if problem.choices:
            entry["choices"] = list(problem.choices)
        if isinstance(answer, ContextFullError):
            return entry | {"correct": False, "error": str(answer)}
        if answer.finish == "cancelled":
            raise CancelledError("interrupted")
        entry |= self._scored(problem, answer.text, cot=name == "cot")
        if name == "rim":
            entry["readouts"] = [self._readout(problem, readout) for readout in answer.readouts]
            entry["chosen"] = self._chosen(answer.readouts)
        entry["finish"] = answer.finish
        entry["tokens"] = {
            "prompt": answer.tokens.prompt,
            "slots": answer.tokens.slots,
            "answer": answer.tokens.answer,
        }
        if answer.notices:
            entry["notices"] = list(answer.notices)
        return entry

    def _scored(self, problem: Problem, text: str, *, cot: bool = False) -> dict[str, Any]:
        suite = self._settings.suite
        value = extract(text, suite, pattern=None if cot else self._plan.pattern)
        return {"text": text, "value": value, "correct": equal(value, problem.answer or "", suite)}

    def _readout(self, problem: Problem, readout: Readout) -> dict[str, Any]:
        return {
            "block": readout.block,
            **self._scored(problem, readout.text or ""),
            "probability": readout.probability,
            "entropy": readout.entropy,
            "confidence": readout.confidence,
            "probe": readout.probe,
        }

    def _chosen(self, readouts: Sequence[Readout]) -> dict[str, int]:
        """The block that each selection, and adaptive depth, takes."""
        chosen = {select: readouts[choose(select, readouts)].block for select in self._plan.selections}
        spec = self._model.spec
        if self._plan.auto and spec is not None:
            chosen["auto"] = halting_depth(readouts, spec.block_count)
        return chosen

    # ---- times -------------------------------------------------------------------------------------------------------

    def _times(self) -> Iterator[Progress]:
        modes = self._plan.modes
        missing = [
            (index, problem, mode)
            for index, problem in enumerate(self._timed)
            for mode in [*modes[index % len(modes) :], *modes[: index % len(modes)]]  # no mode is always the first
            if (mode.name, problem.line) not in self._done_times
        ]
        if not missing:
            return
        for mode in modes:  # the first time of each is a warm-up
            self._time(missing[0][1], mode.name, mode.options)
            yield self.progress(timing=True)
        for _, problem, mode in missing:
            entry = self._time(problem, mode.name, mode.options)
            if entry is not None:
                self._record.append(entry)
            self._n_done += 1
            yield self.progress(timing=True)

    def _time(self, problem: Problem, name: str, options: dict[str, Any]) -> dict[str, Any] | None:
        """One answer alone in its context; None where the question does not fit."""
        self._check_stopped()
        cot = name == "cot"
        question = fill(self._plan.cot_prompt if cot else self._plan.prompt, problem.question, problem.choices)
        try:
            answer = self._model.ask(question, **options)
        except ContextFullError:
            return None
        self._check_stopped()
        if answer.finish == "cancelled":
            raise CancelledError("interrupted")
        return {
            "kind": "latency",
            "mode": name,
            "line": problem.line,
            **self._scored(problem, answer.text, cot=cot),
            "depth": answer.depth,
            "readout": answer.readout,
            "ttft_ms": answer.timings.ttft_ms,
            "total_ms": answer.timings.total_ms,
            "tokens": {
                "prompt": answer.tokens.prompt,
                "slots": answer.tokens.slots,
                "answer": answer.tokens.answer,
            },
        }


__all__ = ["FINAL", "Evaluator", "Progress"]
