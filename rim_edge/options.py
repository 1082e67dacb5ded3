"""Options of a question: what may be said, what it means, and the checks before any work."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, TypedDict, get_args

from rim_edge.backends.base import Sampling
from rim_edge.errors import OptionError, UnsupportedError
from rim_edge.spec import RimSpec

Select = Literal["final", "vote", "confidence", "probe"]
SELECTIONS: tuple[str, ...] = get_args(Select)


class Options(TypedDict, total=False):
    """Keyword options of ``Model.ask``, ``Model.ask_many``, ``Chat.ask`` and ``Chat.stream``.

    Keys:
        blocks: memory blocks to run, 0 to ``rim.max_block_count``, or ``"auto"`` (:mod:`rim_edge.depth`). None: as
            trained; 0 for a model without memory-slot metadata.
        select: ``"final"`` (default: the last block's readout), ``"vote"``, ``"confidence"``, ``"probe"``
            (:mod:`rim_edge.selection`).
        system: system prompt (``Model.ask``, ``Model.ask_many``; a chat has its own).
        temperature: 0 (default) is greedy: always the most probable token.
        top_k: sample from the k most probable tokens, 40; 0 switches it off.
        top_p: sample from the smallest set of this probability, 0.95; 1 switches it off.
        min_p: drop tokens below this share of the top probability, 0.05; 0 switches it off.
        seed: 0 to 2**32 - 2 for repeatable sampling; None: another one each time.
        repeat_penalty: 1.0 (off); above 1 makes the last 64 tokens less likely.
        max_tokens: most answer tokens; None: until the model ends or the context is full.
        stop: text or texts that end the answer; they are not part of it.
        readouts: decode the answer of every readout, in parallel, even where the selection needs only one.
        hidden: keep each readout's hidden state, ``[n_embd] float32``.
        logits: keep each readout's logits, ``[n_vocab] float32``.
        on_text: called in the caller's thread with each whole-character piece of the chosen answer.
        on_prefill: called in the caller's thread with (tokens done, tokens in all) between the batches of a long
            prompt.
    """

    blocks: int | Literal["auto"] | None
    select: Select
    system: str | None
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    seed: int | None
    repeat_penalty: float
    max_tokens: int | None
    stop: str | Sequence[str]
    readouts: bool
    hidden: bool
    logits: bool
    on_text: Callable[[str], None] | None
    on_prefill: Callable[[int, int], None] | None


@dataclass(frozen=True)
class Request:
    """Checked options of one question, every default filled in.

    Attributes:
        blocks: as asked, None replaced by what it stands for.
        depth: most blocks that will be run.
        select, system, sampling, max_tokens, stop, readouts, hidden, logits: see :class:`Options`.
        notices: remarks on this choice for the user.
    """

    blocks: int | Literal["auto"]
    depth: int
    select: Select
    system: str | None
    sampling: Sampling
    max_tokens: int | None
    stop: tuple[str, ...]
    readouts: bool
    hidden: bool
    logits: bool
    on_text: Callable[[str], None] | None
    on_prefill: Callable[[int, int], None] | None
    notices: tuple[str, ...] = ()

    @property
    def decodes_all(self) -> bool:
        """Whether every readout is decoded, not only one."""
        return self.depth > 1 and (self.readouts or self.select in ("vote", "confidence"))


def check(options: Mapping[str, Any], spec: RimSpec | None, coupled_reason: str = "") -> Request:
    """Check ``options`` for a model with ``spec`` (None: a plain model).

    Args:
        options: see :class:`Options`; missing keys take their defaults.
        spec: memory-slot metadata of the model.
        coupled_reason: why the model cannot run memory blocks; empty where it can.

    Raises:
        OptionError: an unknown option, or a value out of its range.
        UnsupportedError: the model cannot do what is asked.
    """
    for name in options:
        if name not in Options.__annotations__:
            near = difflib.get_close_matches(name, Options.__annotations__, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(Options.__annotations__)}"
            raise OptionError(f"unknown option {name!r}: {hint}")
    blocks, depth, notices = _depth(options.get("blocks"), spec, coupled_reason)
    seed = options.get("seed")
    max_tokens = options.get("max_tokens")
    system = options.get("system")
    if system is not None and not isinstance(system, str):
        raise OptionError(f"system must be text, not {type(system).__name__}")
    return Request(
        blocks=blocks,
        depth=depth,
        select=_select(options.get("select", "final"), depth, spec),
        system=system or None,
        sampling=Sampling(
            temperature=_number("temperature", options.get("temperature", 0.0), 0.0, math.inf, "0 (greedy) or more"),
            top_k=_integer("top_k", options.get("top_k", 40), 0, 2**31 - 1),
            top_p=_number("top_p", options.get("top_p", 0.95), 0.0, 1.0, "above 0 and at most 1", low_open=True),
            min_p=_number("min_p", options.get("min_p", 0.05), 0.0, 1.0, "0 to 1"),
            seed=None if seed is None else _integer("seed", seed, 0, 2**32 - 2),
            repeat_penalty=_number(
                "repeat_penalty", options.get("repeat_penalty", 1.0), 0.0, math.inf, "above 0 (1 is off)", low_open=True
            ),
        ),
        max_tokens=None if max_tokens is None else _integer("max_tokens", max_tokens, 1, 2**31 - 1),
        stop=_stop(options.get("stop", ())),
        readouts=bool(options.get("readouts", False)),
        hidden=bool(options.get("hidden", False)),
        logits=bool(options.get("logits", False)),
        on_text=options.get("on_text"),
        on_prefill=options.get("on_prefill"),
        notices=notices,
    )


def _depth(
    blocks: object, spec: RimSpec | None, coupled_reason: str
) -> tuple[int | Literal["auto"], int, tuple[str, ...]]:
    if blocks is None:
        blocks = spec.block_count if spec else 0
    elif blocks != "auto":
        blocks = _integer("blocks", blocks, 0, 2**31 - 1, '0 or more, or "auto"')
    if blocks == 0:
        if spec is not None and not spec.trained_direct:
            return 0, 0, ("blocks=0: this model was not trained to answer without memory blocks, expect worse answers",)
        return 0, 0, ()
    if spec is None:
        raise UnsupportedError(
            f"blocks={blocks}: the model has no memory-slot metadata (rim.*), it can only answer with blocks=0"
        )
    if coupled_reason:
        raise UnsupportedError(f"blocks={blocks}: this model cannot run memory blocks, {coupled_reason}; use blocks=0")
    if blocks == "auto":
        return "auto", spec.block_count, ()
    assert isinstance(blocks, int)
    if blocks > spec.max_block_count:
        raise OptionError(f"blocks is {blocks}, this model runs 0 to {spec.max_block_count} (rim.max_block_count)")
    return blocks, blocks, ()


def _select(select: object, depth: int, spec: RimSpec | None) -> Select:
    if select not in SELECTIONS:
        raise OptionError(f"select is {select!r}, expected one of {', '.join(SELECTIONS)}")
    if select == "final":
        return "final"
    if spec is None:
        raise UnsupportedError(
            f"select={select}: a model without memory-slot metadata has no readouts to choose from; use final"
        )
    if depth == 0:
        raise OptionError(f"select={select} chooses among readouts and blocks=0 has none: use final, or more blocks")
    if select == "vote":
        if spec.answer_pattern is None:
            raise UnsupportedError(
                "select=vote: the model has no rim.answer_pattern, so answers cannot be compared; use confidence"
            )
        return "vote"
    if select == "probe":
        if not spec.has_probe:
            raise UnsupportedError(
                "select=probe: the model has no probe (rim.probe.weight); use final, vote or confidence"
            )
        return "probe"
    return "confidence"


def _number(name: str, value: object, low: float, high: float, expected: str, *, low_open: bool = False) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise OptionError(f"{name} is {value!r}, expected a number, {expected}")
    number = float(value)
    if not math.isfinite(number) or not low <= number <= high or (low_open and number == low):
        raise OptionError(f"{name} is {value}, expected {expected}")
    return number


def _integer(name: str, value: object, low: int, high: int, expected: str | None = None) -> int:
    expected = expected or (f"{low} to {high}" if high < 2**31 - 1 or high > 2**31 else f"{low} or more")
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) <= high:
        raise OptionError(f"{name} is {value!r}, expected a whole number, {expected}")
    return int(value)


def _stop(stop: object) -> tuple[str, ...]:
    texts = (stop,) if isinstance(stop, str) else stop
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise OptionError(f"stop is {stop!r}, expected a text or a list of texts")
    if any(text == "" for text in texts):
        raise OptionError("stop holds an empty text, which would end every answer at once: leave it out")
    return tuple(texts)
