"""Problems as graphs of quantities; the English around them is in ``train/kinds.py`` and what it imports.

A quantity is a number of the text or the result of an operation on two operands; an operand is an ``int`` (a number of
the text) or a ``Ref`` (the result of an earlier operation). One operation is one *step*. Standard library only.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

MAX_VALUE = 24
"""Every quantity lies in 1..MAX_VALUE."""


@dataclass(frozen=True)
class Ref:
    """The result of operation ``index`` (from 0) of the same problem."""

    index: int


Operand = int | Ref


@dataclass(frozen=True)
class Operation:
    """``left op right``; ``op`` is one of ``+ - * /``, division is exact. ``name`` says whose quantity the result is,
    where the text says so: "Tom", "the red box"."""

    op: str
    left: Operand
    right: Operand
    name: str = ""


@dataclass(frozen=True)
class Mark:
    """What a reader who goes through the facts once knows at character ``at`` of them, where a clause ends: the
    quantity that the clause is about, ``depth`` operations (0: stated as a number) after the numbers of the text."""

    at: int
    value: int
    depth: int


@dataclass(frozen=True)
class Problem:
    """Facts, what is asked about them, and the operations that answer it, in solving order; the last gives the answer.

    ``others`` are further problems about the same facts; training asks some of them beside this one. A problem without
    operations asks for a number that the facts state, ``stated``: looking up alone, for training. ``marks`` lie in the
    facts, for training too.
    """

    facts: str
    asked: str
    operations: tuple[Operation, ...]
    kind: str
    others: tuple[Problem, ...] = ()
    stated: int = 0
    marks: tuple[Mark, ...] = ()

    @property
    def question(self) -> str:
        """The whole text."""
        return f"{self.facts} {self.asked}" if self.facts else self.asked

    @property
    def values(self) -> tuple[int, ...]:
        """The value of each step, or the stated number alone; the last one is the answer."""
        return evaluate(self.operations) or (self.stated,)

    @property
    def steps(self) -> list[str]:
        """The steps as equations, such as ``["5+3=8", "8*2=16"]``."""
        values = evaluate(self.operations)
        show = [
            str(o) if isinstance(o, int) else str(values[o.index]) for p in self.operations for o in (p.left, p.right)
        ]
        return [f"{show[2 * i]}{p.op}{show[2 * i + 1]}={values[i]}" for i, p in enumerate(self.operations)]

    @property
    def canonical(self) -> str:
        """Operations and numbers alone, names, items and wording removed; sums and products in one order."""
        return canonical(self.operations) if self.operations else str(self.stated)


def evaluate(operations: tuple[Operation, ...]) -> tuple[int, ...]:
    """The value of every operation, in order. Raises ValueError for an inexact division."""
    values: list[int] = []
    for step in operations:
        left, right = (o if isinstance(o, int) else values[o.index] for o in (step.left, step.right))
        if step.op == "+":
            values.append(left + right)
        elif step.op == "-":
            values.append(left - right)
        elif step.op == "*":
            values.append(left * right)
        elif right == 0 or left % right:
            raise ValueError(f"{left}/{right} is not exact")
        else:
            values.append(left // right)
    return tuple(values)


def canonical(operations: tuple[Operation, ...]) -> str:
    """The answer's expression, fully parenthesised, operands of ``+`` and ``*`` sorted: ``((3+5)*2)``."""

    def text(operand: Operand) -> str:
        return str(operand) if isinstance(operand, int) else expression(operand.index)

    def expression(index: int) -> str:
        step = operations[index]
        left, right = text(step.left), text(step.right)
        if step.op in "+*" and right < left:
            left, right = right, left
        return f"({left}{step.op}{right})"

    return expression(len(operations) - 1)


def needed(operations: Sequence[Operation], result: Ref) -> tuple[Operation, ...]:
    """The operations that ``result`` depends on, in the same order, renumbered; ``result`` is the last."""
    keep: set[int] = set()
    pending = [result.index]
    while pending:
        index = pending.pop()
        if index not in keep:
            keep.add(index)
            step = operations[index]
            pending += [operand.index for operand in (step.left, step.right) if isinstance(operand, Ref)]
    place = {index: Ref(number) for number, index in enumerate(sorted(keep))}

    def moved(operand: Operand) -> Operand:
        return place[operand.index] if isinstance(operand, Ref) else operand

    return tuple(
        replace(operations[i], left=moved(operations[i].left), right=moved(operations[i].right)) for i in sorted(keep)
    )


class Rejected(Exception):
    """A draw that left the allowed range; the caller draws again."""


class Draw:
    """Operations of one problem under construction, with every value kept in 1..max_value."""

    def __init__(self, rng: random.Random, max_value: int) -> None:
        self.rng = rng
        self.max_value = max_value
        self.operations: list[Operation] = []
        self.values: list[int] = []

    def copy(self) -> Draw:
        """The same quantities, to hang distractors on that the answer does not need."""
        other = Draw(self.rng, self.max_value)
        other.operations, other.values = list(self.operations), list(self.values)
        return other

    def value(self, operand: Operand) -> int:
        return operand if isinstance(operand, int) else self.values[operand.index]

    def depth(self, operand: Operand) -> int:
        """How many operations lie between the numbers of the text and ``operand``, on the longest way."""
        if isinstance(operand, int):
            return 0
        step = self.operations[operand.index]
        return 1 + max(self.depth(step.left), self.depth(step.right))

    def number(self, low: int = 2, high: int = 7) -> int:
        """A number for the text. Raises Rejected for an empty range."""
        high = min(high, self.max_value)
        if high < low:
            raise Rejected
        return self.rng.randint(low, high)

    def below(self, operand: Operand, high: int = 7) -> int:
        """A number of 2 or more that can be taken from ``operand`` and leaves something."""
        return self.number(2, min(high, self.value(operand) - 1))

    def apply(self, op: str, left: Operand, right: Operand, name: str = "") -> Ref:
        """Append one operation, whose result is ``name``'s.

        Raises Rejected when its value leaves 1..max_value or a division is inexact.
        """
        a, b = self.value(left), self.value(right)
        if op == "/" and a % b:
            raise Rejected
        result = {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[op]
        if not 1 <= result <= self.max_value:
            raise Rejected
        self.operations.append(Operation(op, left, right, name))
        self.values.append(result)
        return Ref(len(self.values) - 1)
