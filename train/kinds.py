"""The kinds of word problems and their shares; bare arithmetic.

About half of the problems bind late: their facts come in any order, interleaved or with branches, and only the
question at the end decides which quantity is asked. Standard library only.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from train.problems import MAX_VALUE, Draw, Operand, Problem, Rejected
from train.relations import lookup, relations
from train.shops import shop
from train.stories import story
from train.telling import Fact, plain

PLAIN_OPERATIONS = {
    "+": ("What is {a} plus {b}?", "Add {b}."),
    "-": ("What is {a} minus {b}?", "Subtract {b}."),
    "*": ("What is {a} times {b}?", "Multiply by {b}."),
    "/": ("What is {a} divided by {b}?", "Divide by {b}."),
}


OPERATORS = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}


def numbers(rng: random.Random, n_steps: int, max_value: int) -> Problem:
    """Arithmetic without a story: one operation, or a list of instructions."""
    draw = Draw(rng, max_value)
    start = rng.randint(2, max_value)
    quantity: Operand = start
    facts = [Fact(f"{rng.choice(('Start with', 'Take'))} {start}.", start)]
    for _ in range(n_steps):
        value = draw.value(quantity)
        op = rng.choice("+-*/")
        high = 6 if rng.random() < 0.9 else max_value
        if op == "+":
            number = draw.number(2, min(high, max_value - value))
        elif op == "-":
            number = draw.below(quantity, high)
        elif op == "*":
            number = draw.number(2, min(4, max_value // value))
        else:
            number = rng.choice([n for n in range(2, 6) if value % n == 0] or [0])
            if not number:
                raise Rejected
        quantity = draw.apply(op, quantity, number)
        alone, fact = PLAIN_OPERATIONS[op]
        if number == 2 and op in "*/" and rng.random() < 0.5:
            fact = "Double it." if op == "*" else "Halve it."
        if n_steps == 1 and rng.random() < 0.8:
            asked = alone.format(a=start, b=number)
            if op == "+" and rng.random() < 0.1:
                asked = f"What is {start} and {number} together?"
            if number == 2 and op in "*/" and rng.random() < 0.5:
                asked = f"What is {'twice' if op == '*' else 'half of'} {start}?"
            return Problem("", asked, tuple(draw.operations), "numbers")
        facts.append(Fact(fact.format(b=number), draw.value(quantity), draw.depth(quantity)))
    if n_steps > 1 and all(step.op in "+-" for step in draw.operations[1:]) and rng.random() < 0.6:
        terms = " ".join(f"{OPERATORS[step.op]} {step.right}" for step in draw.operations)
        return Problem("", f"What is {start} {terms}?", tuple(draw.operations), "numbers")
    return plain(facts).ask("What is the result?", tuple(draw.operations), "numbers")


Maker = Callable[[random.Random, int, int], Problem]

KINDS: dict[str, tuple[float, Maker]] = {
    "relations": (0.17, relations),
    "relations-branching": (0.17, partial(relations, kind="relations-branching")),
    "relations-in-order": (0.2, partial(relations, kind="relations-in-order")),
    "story": (0.23, story),
    "two-stories": (0.06, partial(story, second=True)),
    "shop": (0.12, shop),
    "numbers": (0.05, numbers),
}
"""Kinds of problems: their share of the data, and what makes one of n steps with values up to a maximum."""

PRACTICE: dict[str, Maker] = {"lookup": lookup}
"""Kinds that only training uses, as exercises."""


def draw_kind(rng: random.Random) -> str:
    """A kind of problem, by its share of the data."""
    return rng.choices(list(KINDS), [share for share, _ in KINDS.values()])[0]


def problem(rng: random.Random, n_steps: int, max_value: int = MAX_VALUE, *, kind: str) -> Problem:
    """A random problem of a kind, of exactly ``n_steps`` steps, every quantity in 1..max_value."""
    maker = PRACTICE[kind] if kind in PRACTICE else KINDS[kind][1]
    while True:
        try:
            made = maker(rng, n_steps, max_value)
        except Rejected:
            continue
        if len(made.operations) == n_steps:
            return made
