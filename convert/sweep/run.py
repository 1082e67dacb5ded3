"""A sweep from beginning to end: calibrate, quantize, answer, measure. Finished parts are kept and not done again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rim_edge.benchmark import machine
from rim_edge.evaluation.data import Problem, read_problems
from rim_edge.evaluation.identity import file_sha256

from ..quantization.importance import ImportanceMatrix
from ..whole_file import check_output
from .asking import Runner
from .calibration import calibration_problems, collect
from .files import Files, facts, fallback_notice
from .measure import compared_rows, floor, reference_rows
from .plan import SCHEMA, SweepOptions, check_types, identity
from .progress import Watch
from .quality import distances, quality
from .rows import Row, RowFile
from .slots import measure_slots
from .speed import MOST_QUESTIONS, summaries, take_round
from .store import Store


class Sweep:
    """One sweep. :meth:`run` does all that is not done yet and returns what ``sweep.json`` holds.

    Raises (when made, before any work):
        OptionError: types, overrides or settings that make no sense; a folder of another sweep.
        DataError: the data cannot be read. ModelFileError: the source cannot be quantized.
    """

    def __init__(self, options: SweepOptions, watch: Watch) -> None:
        self._options, self._watch = options, watch
        self._types = check_types(options.types)
        self._problems = read_problems(options.data, options.settings.suite)[: options.limit]
        self._files = Files(options, watch)
        self._notices: list[str] = []
        if self._files.type in self._types:
            self._types = tuple(kind for kind in self._types if kind != self._files.type)
            self._notices.append(f"{options.source.name} is {self._files.type} itself: that type is the reference")
        calibration = options.calibration
        matrix_sha256: str | None = None
        if calibration is not None and calibration.data is not None:
            self._calibration_problems = calibration_problems(calibration, options.settings.suite)
            matrix_sha256 = file_sha256(calibration.data)
        if calibration is not None and calibration.matrix is not None:
            self._files.matrix = ImportanceMatrix.load(calibration.matrix)
            matrix_sha256 = self._files.matrix.sha256
        if options.save_matrix is not None:
            check_output(options.save_matrix, force=True)
        for kind in self._types:
            self._files.check(kind)
        self._identity = identity(options, self._files.source, file_sha256(options.data), self._problems, matrix_sha256)
        self._store = Store(options.out, self._identity)
        self._reference: Runner | None = None
        self._prompts: dict[int, list[int]] = {}

    # ---- in order -------------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Do the work. An interrupt leaves the finished parts for the next run."""
        try:
            return self._run()
        finally:
            if self._reference is not None:
                self._reference.close()

    def _run(self) -> dict[str, Any]:
        options, files = self._options, self._files
        self._calibrate()
        files.check_room(self._types)
        given = self._reference_rows()
        if not any(problem.answer is not None for problem in self._problems):
            self._notices.append("the data has no answers: distances and agreement only, no accuracy")
        suite = options.settings.suite
        entries = [self._entry(files.type, None, quality(given, given, suite))]
        for kind in self._types:
            rows = self._type_rows(kind, given)
            entries.append(self._entry(kind, files.known(self._store, kind), quality(rows, given, suite)))
        self._measure_speed(entries)
        slots = None
        if options.slots:
            kinds = list(dict.fromkeys(files.recipe(kind).file_type.base for kind in self._types))
            slots, notice = measure_slots(
                options, self._store, self._watch, self._runner(), self._problems, self._tokens, kinds
            )
            self._notices += [notice] if notice else []
        entries = [entries[0], *sorted(entries[1:], key=lambda entry: -entry["file"]["size_bytes"])]
        report = self._report(entries, slots)
        if not options.keep:
            for kind in self._types:
                files.discard(kind)
        return report

    def _report(self, entries: list[dict[str, Any]], slots: dict[str, Any] | None) -> dict[str, Any]:
        reference = self._runner_facts()
        return {
            "schema": SCHEMA,
            "source": {"name": self._options.source.name} | facts(self._files.source),
            "data": {
                "name": self._options.data.name,
                "sha256": self._identity["data"],
                "n_questions": len(self._problems),
                "n_known_answers": sum(problem.answer is not None for problem in self._problems),
            },
            "identity": self._identity,
            "importance": self._importance_facts(),
            "settings": asdict(self._options.settings),
            "machine": machine.describe(),
            **reference,
            "types": entries,
            "slots": slots,
            "notices": list(dict.fromkeys(self._notices)),
        }

    # ---- importance matrix -----------------------------------------------------------------------------------------

    def _calibrate(self) -> None:
        options, store = self._options, self._store
        calibration = options.calibration
        if calibration is None:
            return
        if self._files.matrix is None:
            assert calibration.data is not None
            path = store.path("importance.gguf")
            known = store.get("importance.json", self._identity["importance"])
            if known is not None and path.exists() and file_sha256(path) == known["sha256"]:
                self._files.matrix = ImportanceMatrix.load(path)
            else:
                self._watch.stage("calibrating", len(self._calibration_problems))
                self._files.matrix = collect(
                    options.source,
                    calibration,
                    self._calibration_problems,
                    options.settings.suite,
                    options.settings.n_threads,
                    lambda done, total: self._watch.done(done),
                )
                self._files.matrix.save(path, force=True)
                store.put("importance.json", self._identity["importance"], {"sha256": file_sha256(path)})
                self._watch.say(f"importance matrix collected from {len(self._calibration_problems)} problems")
            if options.save_matrix is not None:
                self._files.matrix.save(options.save_matrix, force=True)

    def _importance_facts(self) -> dict[str, Any] | None:
        if self._files.matrix is None:
            return None
        return {
            **self._identity["importance"],
            "sha256": self._files.matrix.sha256,
            "chunk_count": self._files.matrix.chunk_count,
            "datasets": list(self._files.matrix.datasets),
        }

    # ---- answers ----------------------------------------------------------------------------------------------------

    def _runner(self) -> Runner:
        """The reference, loaded when it is first needed."""
        if self._reference is None:
            self._reference = Runner(self._options.source, self._options.settings)
        return self._reference

    def _tokens(self, part: Sequence[Problem]) -> list[list[int]]:
        for problem in part:
            if problem.line not in self._prompts:
                self._prompts[problem.line] = self._runner().prompt(problem)
        return [self._prompts[problem.line] for problem in part]

    def _rows(self, name: str, key: object) -> RowFile:
        return RowFile(self._store.path(name), key, self._runner().batch, len(self._problems))

    def _reference_rows(self) -> list[Row]:
        runner = self._runner()
        self._tokens(self._problems)  # a question that does not fit is told now
        if runner.why_direct:
            self._notices.append(f"the direct readout only: {runner.why_direct}")
        rows = self._rows("reference/answers.jsonl", self._files.source.sha256)
        if not rows.complete:
            self._watch.stage("reference: answers", len(self._problems))
            self._watch.done(len(rows.rows))
            reference_rows(runner, self._problems, self._tokens, rows, self._watch.done)
            self._watch.say(f"reference ({self._files.type}): {len(rows.rows)} questions answered")
        return rows.rows

    def _runner_facts(self) -> dict[str, Any]:
        """Readouts, and how far the reference is from itself."""
        runner, key = self._runner(), self._files.source.sha256
        found = self._store.get("reference/floor.json", key)
        if found is None:
            rows = self._rows("reference/answers.jsonl", key).rows
            found = floor(runner, self._problems, self._tokens, rows)
            self._store.put("reference/floor.json", key, found)
        return {"readouts": list(runner.blocks), "floor": found}

    def _type_rows(self, kind: str, given: list[Row]) -> list[Row]:
        """The rows of a type, made where they are missing."""
        name, known = f"types/{kind}/answers.jsonl", self._files.known(self._store, kind)
        if known is not None:
            rows = self._rows(name, known["sha256"])
            if rows.complete:
                return rows.rows
        path, known = self._files.ensure(self._store, kind)
        rows = self._rows(name, known["sha256"])
        self._watch.stage(f"{kind}: answers", len(self._problems))
        self._watch.done(len(rows.rows))
        runner = Runner(path, self._options.settings)
        try:
            compared_rows(self._runner(), runner, self._problems, self._tokens, given, rows, self._watch.done)
        finally:
            runner.close()
        mean = distances(rows.rows, [len(runner.blocks) - 1])["kl"].get("mean")
        self._watch.say(f"{kind}: {mean:.4g} nats from the reference at the last readout")
        if not self._options.keep and not self._options.rounds:
            self._files.discard(kind)
        return rows.rows

    def _entry(self, kind: str, file: dict[str, Any] | None, measured: dict[str, Any]) -> dict[str, Any]:
        """One type as ``sweep.json`` has it; ``file`` None: the reference."""
        is_reference = file is None
        if file is None:
            file = facts(self._files.source) | {"name": self._options.source.name, "recipe": None}
        if file["fallbacks"]:
            self._notices.append(fallback_notice(kind, file["fallbacks"]))
        self._notices += file["notices"]
        return {
            "type": kind,
            "reference": is_reference,
            "file": file | {"kept": is_reference or self._options.keep},
            "quality": measured,
            "speed": None,
        }

    # ---- speed ------------------------------------------------------------------------------------------------------

    def _measure_speed(self, entries: list[dict[str, Any]]) -> None:
        options = self._options
        if not options.rounds:
            return
        key = {
            "files": {entry["type"]: entry["file"]["sha256"] for entry in entries},
            "n_threads": options.settings.n_threads,
            "cpu": machine.cpu_name(),
        }
        rounds: list[dict[str, Any]] = self._store.get("speed.json", key) or []
        if len(rounds) < options.rounds:
            files = {self._files.type: options.source}
            files |= {kind: self._files.ensure(self._store, kind)[0] for kind in self._types}
            questions = [self._runner().question(problem) for problem in self._problems[:MOST_QUESTIONS]]
            for number in range(len(rounds), options.rounds):
                self._watch.stage(f"speed, round {number + 1} of {options.rounds}", len(files))
                rounds.append(take_round(files, questions, number, options.settings, self._watch.done))
                self._store.put("speed.json", key, rounds)
        for entry in entries:
            entry["speed"] = summaries(rounds, entry["type"])
