"""Webs of relations between people or boxes, and looking up in lists of them. Standard library only."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from train.lexicon import COLOURS, CONTAINERS, ITEMS, NAMES
from train.problems import Draw, Operand, Problem, Ref, Rejected, needed
from train.telling import TIMES_WORDS, Fact, Telling, distinct, plain, sentence


@dataclass(frozen=True)
class Domain:
    """How a web of relations speaks: each field builds a sentence (or the question) from names and numbers."""

    entities: Callable[[random.Random], list[str]]
    base: str
    more: str
    fewer: str
    times: str
    half: str | None
    asks: tuple[str, ...]
    total: tuple[str, ...]
    difference: str | None
    both: str | None


def _people(rng: random.Random) -> list[str]:
    return rng.sample(NAMES, 8)


def _coloured(rng: random.Random) -> list[str]:
    container = rng.choice(CONTAINERS)[0]
    return [f"the {colour} {container}" for colour in rng.sample(COLOURS, 8)]


def _having(owner: Callable[[random.Random], list[str]], verb: str, plain: str) -> Domain:
    inside = ("How many {items} are in {a}?",) if owner is _coloured else ()
    both_inside = ("How many {items} are in {a} and {b} together?",) if owner is _coloured else ()
    return Domain(
        entities=owner,
        base=f"{{a}} {verb} {{n}} {{items}}.",
        more=f"{{a}} {verb} {{n}} more {{items}} than {{b}}.",
        fewer=f"{{a}} {verb} {{n}} fewer {{items}} than {{b}}.",
        times=f"{{a}} {verb} {{n}} as many {{items}} as {{b}}.",
        half=f"{{a}} {verb} half as many {{items}} as {{b}}.",
        asks=(f"How many {{items}} does {{a}} {plain}?", *inside),
        total=(
            f"How many {{items}} do {{a}} and {{b}} {plain} together?",
            f"How many {{items}} do {{a}} and {{b}} {plain} in all?",
            f"How many {{items}} do {{a}} and {{b}} {plain} altogether?",
            f"How many {{items}} do {{a}} and {{b}} {plain} in total?",
            f"How many do {{a}} and {{b}} {plain} together?",
            *both_inside,
        ),
        difference=f"How many more {{items}} does {{a}} {plain} than {{b}}?",
        both=f"{{a}} {verb} as many {{items}} as {{b}} and {{c}} together.",
    )


DOMAINS: tuple[Domain, ...] = (
    _having(_people, "has", "have"),
    _having(_people, "has", "have"),
    _having(_people, "owns", "own"),
    _having(_people, "collects", "collect"),
    _having(_coloured, "holds", "hold"),
    _having(_coloured, "has", "have"),
    Domain(
        entities=_people,
        base="{a} is {n} years old.",
        more="{a} is {n} years older than {b}.",
        fewer="{a} is {n} years younger than {b}.",
        times="{a} is {n} as old as {b}.",
        half="{a} is half as old as {b}.",
        asks=("How old is {a}?",),
        total=("How old are {a} and {b} together?",),
        difference="How many years older is {a} than {b}?",
        both="{a} is as old as {b} and {c} together.",
    ),
    Domain(
        entities=_people,
        base="{a} walks {n} kilometers.",
        more="{a} walks {n} kilometers more than {b}.",
        fewer="{a} walks {n} kilometers less than {b}.",
        times="{a} walks {n} as far as {b}.",
        half="{a} walks half as far as {b}.",
        asks=("How many kilometers does {a} walk?", "How far does {a} walk?"),
        total=("How many kilometers do {a} and {b} walk together?",),
        difference="How many kilometers more does {a} walk than {b}?",
        both=None,
    ),
)


def _elliptic(rng: random.Random, told: str, other: str, before: str) -> str:
    """``told`` at times without its "than Tom" or "as Tom", where the sentence before speaks of Tom."""
    for end in (f" than {other}.", f" as {other}."):
        if before.startswith(sentence(other)) and told.endswith(end) and rng.random() < 0.12:
            return told[: -len(end)] + "."
    return told


def _joined(rng: random.Random, facts: list[Fact]) -> Telling:
    """At times two facts in one sentence, as in "Tom has 5 pens and Ann has 3 more pens than Tom."."""
    telling = Telling()
    for fact in facts:
        if telling.text and rng.random() < 0.12 and " and " not in telling.sentence:
            lowered = fact.text[0].lower() + fact.text[1:] if fact.text.startswith("The ") else fact.text
            telling.add(fact, rng.choice((" and ", ", and ", ", ")), lowered)
        else:
            telling.add(fact)
    return telling


def _told_by_the_way(rng: random.Random, facts: list[Fact], asides: list[Fact]) -> list[Fact]:
    """``facts`` in their order, and each of ``asides`` somewhere behind what it needs."""
    told = list(facts)
    for aside in asides:
        behind = 1 + max(place for place, fact in enumerate(told) if fact.name in aside.needs)
        told.insert(rng.randint(behind, len(told)), aside)
    return told


def relations(rng: random.Random, n_steps: int, max_value: int, kind: str = "relations") -> Problem:
    """A web of relations between people or boxes; the question decides what is asked.

    ``relations``: a chain in any order, and what goes on behind its end; ``relations-branching``: told from the start
    on, with branches that the question does not need; ``relations-in-order``: a chain from the start to the end.
    """
    draw = Draw(rng, max_value)
    domain = rng.choice(DOMAINS)
    names = domain.entities(rng)
    items = rng.choice(ITEMS)[1]
    ending = "plain"
    if n_steps >= 2 and rng.random() < 0.4:
        ending = "total" if domain.difference is None or rng.random() < 0.6 else "difference"

    known: list[tuple[str, Operand]] = []
    facts: list[Fact] = []

    def tell(template: str, record: Draw, quantity: Operand, needs: tuple[str, ...], **fields: str | int) -> None:
        name = names.pop()
        if needs and rng.random() < 0.2:  # without the things, as in "Ann has 3 more than Tom."
            template = template.replace(" {items}", "", 1)
        text = sentence(template, a=name, items=items, **fields)
        known.append((name, quantity))
        facts.append(Fact(text, record.value(quantity), record.depth(quantity), name, needs))

    def relate(previous: tuple[str, Operand], record: Draw) -> None:
        """One more entity, related to ``previous``; its operation goes to ``record``."""
        b, source = previous
        choices = ["more", "fewer", "times", "half"] + (["both"] if domain.both and len(known) >= 2 else [])
        relation = rng.choices(choices, [3, 3, 3, 2, 2][: len(choices)])[0]
        name = names[-1]
        if relation == "both":
            c, second = rng.choice([entry for entry in known if entry[0] != b])
            return tell(domain.both or "", record, record.apply("+", source, second, name), (b, c), b=b, c=c)
        if relation == "half" and domain.half and record.value(source) % 2 == 0:
            return tell(domain.half, record, record.apply("/", source, 2, name), (b,), b=b)
        if relation == "times":
            factor = rng.randint(2, min(3, max(2, max_value // record.value(source))))
            words = rng.choice(TIMES_WORDS[factor])
            return tell(domain.times, record, record.apply("*", source, factor, name), (b,), b=b, n=words)
        more = relation == "more" or record.value(source) < 4
        number = record.number() if more else record.below(source)
        quantity = record.apply("+" if more else "-", source, number, name)
        return tell(domain.more if more else domain.fewer, record, quantity, (b,), b=b, n=number)

    start = rng.randint(2, 12)
    tell(domain.base, draw, start, (), n=start)
    for _ in range(n_steps - (ending != "plain")):
        relate(known[-1], draw)
        if kind == "relations-in-order":
            facts[-1] = replace(facts[-1], text=_elliptic(rng, facts[-1].text, known[-2][0], facts[-2].text))

    last, earlier = known[-1], known[rng.randrange(len(known) - 1)]
    if ending == "total":
        draw.apply("+", last[1], earlier[1])
        first, second = (last, earlier) if rng.random() < 0.5 else (earlier, last)
        question = rng.choice(domain.total).format(a=first[0], b=second[0], items=items)
    elif ending == "difference":
        if draw.value(last[1]) < draw.value(earlier[1]):
            last, earlier = earlier, last
        stated = [draw.value(operand) for operand in (draw.operations[-1].left, draw.operations[-1].right)]
        if draw.value(draw.apply("-", last[1], earlier[1])) in stated:
            raise Rejected
        question = (domain.difference or "").format(a=last[0], b=earlier[0], items=items)
    else:
        question = rng.choice(domain.asks).format(a=last[0], items=items)

    side = draw.copy()
    if kind == "relations":
        for _ in range(rng.choices((0, 1, 2), (5, 4, 1 if n_steps < 4 else 0))[0]):
            relate(known[-1], side)
        rng.shuffle(facts)
    elif kind == "relations-branching":
        chain = len(facts)
        for _ in range(rng.choices((1, 2), (2, 1))[0]):
            relate(rng.choice(known), side)
        facts = _told_by_the_way(rng, facts[:chain], facts[chain:])
    told = _joined(rng, facts)

    def ask(asked: str, quantity: Ref, source: Draw) -> Problem:
        return told.ask(asked, needed(source.operations, quantity), kind)

    others = []
    for name, quantity in known:
        if isinstance(quantity, Ref):
            others.append(ask(rng.choice(domain.asks).format(a=name, items=items), quantity, side))
    for _ in range(2 if len(known) > 2 else 0):
        (a, first_of), (b, second_of) = rng.sample(known, 2)
        more = side.copy()
        try:
            quantity = more.apply("+", first_of, second_of)
        except Rejected:
            continue
        others.append(ask(rng.choice(domain.total).format(a=a, b=b, items=items), quantity, more))
    return told.ask(question, tuple(draw.operations), kind, distinct(question, others))


def lookup(rng: random.Random, n_steps: int, max_value: int) -> Problem:
    """Several stated quantities, one operation on two of them.

    The others ask for the quantities themselves, and those of the kind ``recall`` break off behind a name: what comes
    to mind is that name's quantity. Raises ValueError unless ``n_steps`` is 1.
    """
    if n_steps != 1:
        raise ValueError("the kind lookup has problems of 1 step only")
    draw = Draw(rng, max_value)
    domain = rng.choice(DOMAINS)
    names = domain.entities(rng)
    items = rng.choice(ITEMS)[1]
    count = rng.choices((2, 3, 4, 5, 6), (4, 4, 2, 1, 1))[0]
    known = [(names.pop(), rng.randint(2, max_value // 2)) for _ in range(count)]
    told = plain([Fact(sentence(domain.base, a=name, n=number, items=items), number) for name, number in known])
    others = []
    for name, number in known:
        ask = rng.choice(domain.asks)
        begun = ask[: ask.index("{a}") + 3]
        for kind, text in (("lookup", ask), ("recall", begun), ("recall", "{a}")):
            asked = sentence(text, a=name, items=items)
            others.append(told.ask(asked, (), kind, stated=number))
    (a, first), (b, second) = rng.sample(known, 2)
    if domain.difference and first > second and rng.random() < 0.5:
        draw.apply("-", first, second)
        asked = domain.difference.format(a=a, b=b, items=items)
    else:
        draw.apply("+", first, second)
        asked = rng.choice(domain.total).format(a=a, b=b, items=items)
    return told.ask(asked, tuple(draw.operations), "lookup", tuple(others))
