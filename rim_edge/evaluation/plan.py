"""What an evaluation asks: the user's settings, and the plan that they make with what the model can do."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rim_edge import many
from rim_edge.depth import DEFAULT_RULE
from rim_edge.errors import OptionError, RimError, UnsupportedError
from rim_edge.evaluation import latex
from rim_edge.evaluation.data import Problem
from rim_edge.evaluation.suites import fill, find_suite
from rim_edge.model import Model
from rim_edge.options import SELECTIONS

FINAL = "final"


@dataclass(frozen=True)
class Settings:
    """What the user chose; every answer is greedy.

    Attributes:
        suite: name of the suite, None for any known form.
        blocks: greatest depth, None for as trained, 0 for direct answers alone.
        cot: whether to ask for a chain of thought too.
        prompt, cot_prompt: texts around ``{question}`` and ``{choices}``; None: those of the suite.
        pattern: regular expression whose group 1 is the final answer; None: the model's ``rim.answer_pattern`` (not for
            chains of thought); empty: the suite's rules alone.
        max_tokens, cot_tokens: longest answer, direct and with blocks (None: the suite's), and as a chain of thought.
        stop: texts that end an answer.
        system: system message.
        lanes: questions side by side, None for the usual number.
        limit: questions to ask, a sample drawn with ``seed``; None: all, in the order of the file.
        seed: of the sample, and of the order of choices.
        latency: questions that are asked again, one at a time, to take times.
    """

    suite: str | None = None
    blocks: int | None = None
    cot: bool = False
    prompt: str | None = None
    cot_prompt: str | None = None
    pattern: str | None = None
    max_tokens: int | None = None
    cot_tokens: int = 512
    stop: tuple[str, ...] = ()
    system: str | None = None
    lanes: int | None = None
    limit: int | None = None
    seed: int = 0
    latency: int = 20


@dataclass(frozen=True)
class Mode:
    """One way to answer whose time is taken: its name in the results, and the options of ``Model.ask``."""

    name: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is asked of each question.

    Attributes:
        depth: memory blocks of the RiM pass; 0: there is none.
        passes: ``direct``, ``rim`` (one pass gives every depth and selection), ``cot``.
        selections: of the model: ``final`` and those of ``vote``, ``confidence``, ``probe`` that it can do.
        auto: whether adaptive depth is evaluated; its readouts are those of the RiM pass.
        modes: ways to answer whose time is taken.
        prompt, cot_prompt: texts around the question.
        pattern: of direct answers and readouts, None for the suite's rules.
        max_tokens: of direct answers and readouts.
        lanes: questions side by side.
        notices: remarks for the user.
    """

    depth: int
    passes: tuple[str, ...]
    selections: tuple[str, ...]
    auto: bool
    modes: tuple[Mode, ...]
    prompt: str
    cot_prompt: str
    pattern: str | None
    max_tokens: int
    lanes: int
    notices: tuple[str, ...]


def make_plan(model: Model, settings: Settings) -> Plan:
    """The plan for ``model``.

    Raises:
        OptionError: a setting makes no sense, or not for this model.
        UnsupportedError: blocks were asked for and the model cannot run them, or sympy is needed and missing.
    """
    suite = find_suite(settings.suite)
    if suite.kind == "math":
        latex.check_installed()
    prompt, cot_prompt = settings.prompt or suite.prompt, settings.cot_prompt or suite.cot_prompt
    for template in (prompt, cot_prompt):
        fill(template, "", ("",) if suite.kind == "choice" else ())
    depth, notices = _depth(model, settings.blocks)
    max_tokens = settings.max_tokens or suite.max_tokens
    common = {"system": settings.system, "stop": settings.stop}
    short = {**common, "max_tokens": max_tokens}
    selections = tuple(select for select in SELECTIONS if depth and _can(model, depth, select))
    auto = depth > 0 and model.spec is not None and depth >= model.spec.block_count
    if depth and not auto:
        notices.append("--blocks is less than the model's own block count, so adaptive depth is left out")
    modes = [Mode("direct", {**short, "blocks": 0})]
    modes += [Mode(f"block_{k}", {**short, "blocks": k}) for k in range(1, depth + 1)]
    if auto:
        modes.append(Mode("auto", {**short, "blocks": "auto"}))
    modes += [Mode(name, {**short, "blocks": depth, "select": name}) for name in selections if name != FINAL]
    if settings.cot:
        modes.append(Mode("cot", {**common, "max_tokens": settings.cot_tokens, "blocks": 0}))
    for mode in modes:
        model.ask_many([], batch=settings.lanes, **mode.options)  # checks the options, asks nothing
    passes = ("direct", *(["rim"] if depth else []), *(["cot"] if settings.cot else []))
    if model.spec is not None and not model.spec.trained_direct:
        notices.append("the model was not trained to answer without memory blocks, so its direct answers suffer")
    pattern = settings.pattern if settings.pattern is not None else model.spec.answer_pattern if model.spec else None
    _check_pattern(pattern)
    lanes = many.lanes(settings.lanes, model.spec.max_block_count if model.spec and depth else 1)
    return Plan(
        depth, passes, selections, auto, tuple(modes), prompt, cot_prompt, pattern or None, max_tokens, lanes,
        tuple(notices),
    )  # fmt: skip


def _check_pattern(pattern: str | None) -> None:
    try:
        groups = re.compile(pattern).groups if pattern else 1
    except re.error as error:
        raise OptionError(f"the pattern {pattern!r} is no regular expression: {error}") from None
    if groups < 1:
        raise OptionError(f"the pattern {pattern!r} has no group: put parentheses around the final answer")


def _depth(model: Model, blocks: int | None) -> tuple[int, list[str]]:
    """Depth of the RiM pass, and why there is none."""
    if model.spec is None:
        if blocks:
            model.ask_many([], blocks=blocks)  # raises, with the reason
        return 0, ["this model has no memory blocks (no rim.* metadata): direct answers only"]
    if blocks == 0:
        return 0, []
    depth = model.spec.block_count if blocks is None else blocks
    try:
        model.ask_many([], blocks=depth)
    except UnsupportedError as error:
        if blocks is not None:
            raise
        return 0, [f"direct answers only: {error}"]
    return depth, []


def _can(model: Model, depth: int, select: Any) -> bool:
    try:
        model.ask_many([], blocks=depth, select=select)
    except (UnsupportedError, OptionError):
        return False
    return True


def sample(problems: Sequence[Problem], settings: Settings) -> tuple[list[Problem], list[int]]:
    """The problems to ask, and the lines that have no answer and are left out.

    With a limit: the first ones of an order drawn with the seed, so that a greater limit asks the same ones and more.

    Raises RimError where no problem has an answer.
    """
    missing = [problem.line for problem in problems if problem.answer is None]
    known = [problem for problem in problems if problem.answer is not None]
    if not known:
        raise RimError(f"no row of the data has an answer (first row: {missing[0]}): there is nothing to compare with")
    if settings.limit is not None:
        known = random.Random(settings.seed).sample(known, len(known))[: settings.limit]
    return known, missing


def halting_depth(readouts: Sequence[Any], deepest: int) -> int:
    """Depth at which adaptive depth stops, given the readouts of blocks 1..``deepest``."""
    for depth in DEFAULT_RULE.depths(deepest)[:-1]:
        if DEFAULT_RULE.sure(readouts[:depth]):
            return depth
    return deepest
