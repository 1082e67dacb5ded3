"""A whole benchmark: starts the engines, takes the samples in turn, and puts the report together."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rim_edge import _native
from rim_edge.benchmark import limits as limits_of
from rim_edge.benchmark import machine, plan
from rim_edge.benchmark.child import Child, ChildEndedError
from rim_edge.benchmark.limits import Limits
from rim_edge.benchmark.measure import ENGINE
from rim_edge.benchmark.peers import check_peer
from rim_edge.benchmark.plan import Case, Settings
from rim_edge.benchmark.statistics import Summary, paired_ratio, summarize
from rim_edge.benchmark.work import Work
from rim_edge.errors import RimError

OURS = "rim-edge"
_KINDS = 4  # of questions: direct, with blocks, auto, chain of thought
Progress = Callable[[int, int, str], None]
Samples = dict[str, list[dict[str, float]]]


def run(settings: Settings, progress: Progress = lambda done, total, what: None) -> dict[str, Any]:
    """Measure everything and return the report as JSON values (docs/bench.md describes them).

    Args:
        settings: what the user chose.
        progress: called with (steps done, steps in all, what comes next).

    Raises:
        RimError: the model cannot be loaded, the options do not fit it, the peer is missing, or a process ended.
    """
    began = time.perf_counter()
    target = check_peer(settings.compare) if settings.compare else ""
    progress(0, 1, "starting")
    with ExitStack() as stack:
        setup = {**settings.loading, "n_threads": settings.n_threads, "n_ctx": settings.n_ctx}
        ours = stack.enter_context(Child(ENGINE, setup, name=OURS))
        facts = ours.call("facts")
        questions = _questions(settings, ours)
        plan.check_room(settings, facts, max(len(asked["tokens"]) for kind in questions for asked in kind))
        texts = [ours.call("text", n_tokens=plan.TEXT, seed=seed) for seed in range(3)]
        cases = plan.cases(settings, facts, questions, texts)
        starts: dict[str, tuple[str, dict[str, Any]]] = {
            OURS: (ENGINE, {**settings.loading, "n_threads": facts["n_threads"], "n_ctx": facts["n_ctx"]})
        }
        engines = {OURS: ours}
        if settings.compare:
            room = max(facts["n_ctx"] + facts["block_room"], max(plan.WIDTHS) + 256)
            starts[settings.compare] = (target, {**starts[OURS][1], "n_ctx": room})
            engines[settings.compare] = stack.enter_context(Child(*starts[settings.compare], name=settings.compare))
        file = _native.GgufFile(settings.path)
        work = Work(file.metadata, file.tensors, settings.cache_type)
        meter = _LimitMeter(work, facts, 2 + (settings.rounds + 1) * len(cases), progress)
        meter.measure()
        samples, left_out = _rounds(settings, cases, engines, starts, meter)
        meter.measure()
        memory = {name: child.call("memory")["peak_rss_bytes"] for name, child in engines.items()}
    return {
        "format": 1,
        "model": {"path": settings.path, "file_bytes": Path(settings.path).stat().st_size, **_model(facts, work)},
        "machine": machine.describe(),
        "settings": {
            "rounds": settings.rounds,
            "threads": facts["n_threads"],
            "context": facts["n_ctx"],
            "cache_type": settings.cache_type,
            "flash_attention": settings.flash_attention,
            "mmap": settings.use_mmap,
            "prompt_tokens": len(questions[0][0]["tokens"]),
            "answer_tokens": settings.answer_tokens,
            "cot_tokens": settings.cot_tokens,
            "question": questions[0][0]["text"],
            "compare": settings.compare,
        },
        "limits": [meter.found[n].to_dict() for n in sorted(meter.found)],
        "cases": [
            _case(case, samples[case.key], work, meter.found.get(case.n_threads))
            for case in cases
            if samples[case.key][OURS]
        ],
        "peak_rss_bytes": memory,
        "left_out": [*_reasons(facts), *left_out],
        "seconds": time.perf_counter() - began,
    }


def _questions(settings: Settings, child: Child) -> list[list[dict[str, Any]]]:
    """Another question for every kind and round, so that nobody meets a text again."""
    return [
        [
            child.call("question", n_tokens=settings.prompt_tokens, variant=kind + _KINDS * number)
            for number in range(settings.rounds + 1)
        ]
        for kind in range(_KINDS)
    ]


class _LimitMeter:
    """Measures the machine's limits before and after the rounds, and counts the steps of the whole run."""

    def __init__(self, work: Work, facts: Mapping[str, Any], n_steps: int, progress: Progress) -> None:
        self.found: dict[int, Limits] = {}
        self._work = work
        self._threads = [] if facts["on_gpu"] else plan.thread_counts(facts["n_threads"])
        self._done, self._total = 0, n_steps
        self._progress = progress

    def step(self, what: str) -> None:
        self._progress(self._done, self._total, what)
        self._done += 1

    def measure(self) -> None:
        self.step("the machine's limits")
        for n_threads in self._threads:
            found = limits_of.measure(self._work, n_threads)
            self.found[n_threads] = self.found[n_threads].more(found) if n_threads in self.found else found


def _rounds(
    settings: Settings,
    cases: Sequence[Case],
    engines: Mapping[str, Child],
    starts: Mapping[str, tuple[str, dict[str, Any]]],
    meter: _LimitMeter,
) -> tuple[dict[str, Samples], list[str]]:
    """Samples of every case by engine, and what had to be left out. The engines take turns within each case."""
    samples: dict[str, Samples] = {case.key: {name: [] for name in engines} for case in cases}
    failed: dict[str, str] = {}
    for number in range(-1, settings.rounds):
        for case in cases:
            meter.step(f"{case.group}: {case.label}" if case.label != case.group else case.label)
            if case.key in failed:
                continue
            try:
                for name, child in engines.items():
                    ask = case.ours if name == OURS else case.theirs
                    if ask is None:
                        continue
                    request = ask(number)
                    sample = (
                        _fresh(name, *starts[name], request) if case.fresh else child.call(request[0], **request[1])
                    )
                    if number >= 0:
                        samples[case.key][name].append(sample)
            except ChildEndedError:
                raise
            except RimError as error:
                failed[case.key] = f"{case.group}: {case.label}: {error}"
                samples[case.key] = {name: [] for name in engines}
    return samples, list(failed.values())


def _fresh(name: str, target: str, setup: Mapping[str, Any], request: plan.Request) -> dict[str, float]:
    """A new process that loads the model and answers once: what ``rim-edge ask`` pays."""
    with Child(target, setup, name=name) as child:
        started = child.call("started")
        first = child.call(request[0], **request[1])
        return {
            "start_ms": child.start_ms,
            "load_ms": started["load_ms"],
            "first_ms": first["ttft_ms"],
            "loaded_rss_bytes": started["peak_rss_bytes"],
            **child.call("memory"),
        }


# ---- the report -----------------------------------------------------------------------------------------------------


def _model(facts: Mapping[str, Any], work: Work) -> dict[str, Any]:
    names = ("description", "n_params", "weight_bytes", "blocks", "on_gpu")
    return {
        **{name: facts[name] for name in names},
        "slots": facts["blocks"] * len(facts["block_tokens"]),
        "main_types": work.main_types(),
    }


def _reasons(facts: Mapping[str, Any]) -> list[str]:
    reasons = []
    if not facts["blocks"]:
        reasons.append(f"memory blocks: {facts['no_blocks']}")
    if facts["on_gpu"]:
        reasons.append("the machine's limits: they are measured on the CPU, and the model runs on a GPU")
    return reasons


def _case(case: Case, samples: Samples, work: Work, limits: Limits | None) -> dict[str, Any]:
    report: dict[str, Any] = {
        "key": case.key,
        "group": case.group,
        "label": case.label,
        "threads": case.n_threads,
        "engines": {
            name: {figure: vars(summarize([sample[figure] for sample in taken])).copy() for figure in case.figures}
            for name, taken in samples.items()
            if taken
        },
        "samples": {name: taken for name, taken in samples.items() if taken},
    }
    if limits is not None:
        for figure, bound in _bounds(case, samples[OURS], work, limits).items():
            report["engines"][OURS][figure] |= bound
    others = [name for name in report["engines"] if name != OURS]
    if others:
        report["ratio"] = {figure: vars(_against(figure, samples[OURS], samples[others[0]])) for figure in case.figures}
    return report


def _bounds(
    case: Case, taken: Sequence[Mapping[str, float]], work: Work, limits: Limits
) -> dict[str, dict[str, float]]:
    """For each figure the best that the machine's limits allow, and the share of it that was reached."""
    bounds: dict[str, list[float]] = {}
    shares: dict[str, list[float]] = {}
    for sample in taken:
        for figure, passes in case.work(sample).items():
            least_s = limits.seconds(work, passes)
            bound = case.amount / least_s if case.amount else 1e3 * least_s
            bounds.setdefault(figure, []).append(bound)
            shares.setdefault(figure, []).append(sample[figure] / bound if case.amount else bound / sample[figure])
    return {
        figure: {"limit": summarize(bounds[figure]).median, "share": summarize(shares[figure]).median}
        for figure in bounds
    }


def _against(figure: str, ours: Sequence[Mapping[str, float]], theirs: Sequence[Mapping[str, float]]) -> Summary:
    """How many times as fast as the peer (or as small), from the tokens on: the peer is given tokens, not text."""
    mine = [sample[figure] - (sample.get("prompt_ms", 0.0) if figure.endswith("_ms") else 0.0) for sample in ours]
    other = [sample[figure] for sample in theirs]
    return paired_ratio(mine, other) if figure.endswith("_per_s") else paired_ratio(other, mine)
