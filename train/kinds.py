"""The kinds of word problems: the English sentences that state quantities and operations.

About half of the problems bind late: their facts come shuffled or interleaved and with distractors, and only the
question at the end decides which quantity is asked. Standard library only.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from train.lexicon import COLOURS, CONTAINERS, FOOD, ITEMS, MALE, NAMES, PAST
from train.problems import MAX_VALUE, Draw, Mark, Operand, Problem, Ref, Rejected, needed


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


TIMES_WORDS = {2: ("twice", "2 times"), 3: ("3 times",), 4: ("4 times",), 5: ("5 times",)}


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


def _sentence(template: str, **fields: str | int) -> str:
    text = template.format(**fields)
    return text[0].upper() + text[1:]


def _relation(rng: random.Random, template: str, **fields: str | int) -> str:
    """A sentence that compares; at times without the things, as in "Ann has 3 more than Tom."."""
    return _sentence(template.replace(" {items}", "", 1) if rng.random() < 0.2 else template, **fields)


def _elliptic(rng: random.Random, sentence: str, other: str, before: str) -> str:
    """``sentence`` at times without its "than Tom" or "as Tom", where the sentence before speaks of Tom."""
    for end in (f" than {other}.", f" as {other}."):
        if before.startswith(_sentence(other)) and sentence.endswith(end) and rng.random() < 0.12:
            return sentence[: -len(end)] + "."
    return sentence


@dataclass(frozen=True)
class Fact:
    """A sentence of the facts; where it gives a quantity: its value, how many operations deep it lies, whose it is, and
    whose quantities (``needs``) must be known before."""

    text: str
    value: int | None = None
    depth: int = 0
    name: str = ""
    needs: tuple[str, ...] = ()


class Telling:
    """The facts as a text that grows sentence by sentence, with the marks of what is known where."""

    def __init__(self) -> None:
        self.text = ""
        self.marks: list[Mark] = []
        self.known: set[str] = set()

    def add(self, fact: Fact, link: str = "", text: str | None = None) -> None:
        """Append a fact, or ``text`` in its place, as a sentence of its own or after ``link``, such as " and "."""
        text = fact.text if text is None else text
        before = self.text[:-1] + link if link else self.text + " " if self.text else ""
        self.text = before + text
        if fact.value is not None and self.known.issuperset(fact.needs):
            self.known.add(fact.name)
            self.marks.append(Mark(len(self.text) - 1, fact.value, fact.depth))

    @property
    def sentence(self) -> str:
        """The last sentence."""
        return self.text.rpartition(".")[0].rpartition(".")[2]


def _plain(facts: list[Fact]) -> Telling:
    """Every fact a sentence of its own."""
    telling = Telling()
    for fact in facts:
        telling.add(fact)
    return telling


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
        text = (partial(_relation, rng) if needs else _sentence)(template, a=name, items=items, **fields)
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
    marks = tuple(told.marks)

    def ask(asked: str, quantity: Ref, source: Draw) -> Problem:
        return Problem(told.text, asked, needed(source.operations, quantity), kind, marks=marks)

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
    operations = tuple(draw.operations)
    return Problem(told.text, question, operations, kind, _distinct(question, others), marks=marks)


def _distinct(asked: str, others: list[Problem]) -> tuple[Problem, ...]:
    """``others`` without those that ask the same as ``asked`` or as an earlier one."""
    return tuple({other.asked: other for other in others if other.asked != asked}.values())


GAINS = (
    "{a} buys {n} {more}{items}.",
    "{a} finds {n} {more}{items}.",
    "{a} picks {n} {more}{items}.",
    "{a} makes {n} {more}{items}.",
    "{a} gets another {n} {items}.",
    "{a} takes {n} {more}{items} from {x}.",
    "{a} gets {n} {more}{items} from {x}.",
    "{x} gives {a} {n} {items}.",
)
LOSSES = (
    "{a} loses {n} {items}.",
    "{a} sells {n} {items}.",
    "{a} gives {n} {items} to {x}.",
    "{a} gives {x} {n} {items}.",
    "{a} gives away {n} {items}.",
    "{a} uses {n} {items}.",
    "{a} uses {n} of the {items}.",
    "{a} drops {n} {items}.",
)
EATS = "{a} eats {n} {items}."


class Thread:
    """One person's running quantity in a story, told event by event.

    A thread that is ``alone`` in its story may speak more freely: "he" for the name, "finds 3 more" without the things,
    "Ben gives Tom 3 pens", which names another person first.
    """

    def __init__(
        self, rng: random.Random, draw: Draw, name: str, items: str, others: list[str], alone: bool, past: bool
    ) -> None:
        self.rng, self.draw, self.name, self.items, self.others = rng, draw, name, items, others
        self.alone, self.past = alone, past
        self.pronoun = "he" if name in MALE else "she"
        self.subject = self.pronoun if alone and rng.random() < 0.5 else name
        self.quantity: Operand = rng.randint(3, 12)

    def fact(self, text: str) -> Fact:
        """A sentence behind which the running quantity is known."""
        return Fact(text, self.draw.value(self.quantity), self.draw.depth(self.quantity))

    def tell(self, text: str) -> str:
        """A sentence in the story's tense."""
        if self.past:
            text = " ".join(PAST.get(word, word) for word in text.split(" "))
        return _sentence(text)

    def opening(self) -> Fact:
        has = f"{self.name} has {self.draw.value(self.quantity)} {self.items}"
        if self.alone and self.rng.random() < 0.1:
            things = self.rng.choice([many for _, many in ITEMS if many != self.items])
            has += f" and {self.rng.randint(2, 9)} {things}"
        return self.fact(self.tell(has + "."))

    def boxes(self) -> Fact:
        """An opening that is itself a step: some containers with as many things each."""
        count, each = self.draw.number(2, 4), self.draw.number(2, 6)
        self.quantity = self.draw.apply("*", count, each)
        one, many = self.rng.choice(CONTAINERS)
        if self.rng.random() < 0.3:
            first = self.tell(f"{self.name} has {count} {many} of {self.items}.")
            second = self.tell(f"{self.subject} has {each} {self.items} in each {one}.")
            return self.fact(f"{first} {second}")
        return self.fact(self.tell(f"{self.name} has {count} {many} with {each} {self.items} each."))

    def event(self, steps_left: int) -> tuple[Fact, int]:
        """One event: its sentence and how many steps it took."""
        rng, draw, subject = self.rng, self.draw, self.subject
        other = rng.choice(self.others)
        roll = rng.random()
        if roll < 0.12 and steps_left >= 2:
            count, each = draw.number(2, 3), draw.number(2, 5)
            bought = draw.apply("*", count, each)
            self.quantity = draw.apply("+", self.quantity, bought)
            container = rng.choice(CONTAINERS)[1]
            return self.fact(self.tell(f"{subject} buys {count} {container} with {each} {self.items} each.")), 2
        if roll < 0.25 and draw.value(self.quantity) % 2 == 0:
            self.quantity = draw.apply("/", self.quantity, 2)
            return self.fact(self.tell(f"{subject} gives half of the {self.items} to {other}.")), 1
        gains = roll < 0.6 or draw.value(self.quantity) < 4
        number = draw.number() if gains else draw.below(self.quantity)
        self.quantity = draw.apply("+" if gains else "-", self.quantity, number)
        templates = list(GAINS if gains else LOSSES) + ([EATS] if self.items in FOOD and not gains else [])
        template = rng.choice([t for t in templates if t.startswith("{a}") or (self.alone and subject == self.name)])
        more = "more " if rng.random() < 0.5 else ""
        text = template.format(a=subject, x=other, n=number, items=self.items, more=more)
        if self.alone and rng.random() < 0.15:
            text = text.replace(" " + self.items, "", 1)
        return self.fact(self.tell(("then " if rng.random() < 0.2 else "") + text)), 1

    def question(self) -> str:
        name = self.pronoun if self.subject != self.name and self.rng.random() < 0.3 else self.name
        if self.past and self.rng.random() < 0.3:
            return f"How many {self.items} did {name} have in the end?"
        if self.alone and self.rng.random() < 0.1:
            return f"How many {self.items} are left?"
        ending = self.rng.choice(("have now", "have left", "have in the end", "have"))
        return f"How many {self.items} does {name} {ending}?"

    def sharing(self) -> tuple[Fact, str]:
        """A last step that shares the quantity out equally: fact and question."""
        value = self.draw.value(self.quantity)
        friends = self.rng.choice([n for n in range(2, 6) if value % n == 0 and value // n > 1] or [0])
        if not friends:
            raise Rejected
        self.quantity = self.draw.apply("/", self.quantity, friends)
        if self.rng.random() < 0.5:
            return (
                self.fact(self.tell(f"{self.name} shares the {self.items} equally among {friends} friends.")),
                f"How many {self.items} does each friend get?",
            )
        jars = self.rng.choice(CONTAINERS)
        return (
            self.fact(self.tell(f"{self.name} puts the {self.items} equally into {friends} {jars[1]}.")),
            f"How many {self.items} are in each {jars[0]}?",
        )


def story(rng: random.Random, n_steps: int, max_value: int, second: bool = False) -> Problem:
    """Events in the order of time; with ``second``, another person's events are told in between."""
    draw = Draw(rng, max_value)
    names = rng.sample(NAMES, 5)
    items = rng.choice(ITEMS)[1]
    past = rng.random() < 0.3
    main = Thread(rng, draw, names.pop(), items, names[:2], not second, past)
    facts: list[Fact] = []
    left = n_steps
    if left >= 2 and rng.random() < 0.25:
        facts.append(main.boxes())
        left -= 1
    else:
        facts.append(main.opening())
    sharing = left >= 2 and rng.random() < 0.2
    while left - sharing > 0:
        told, used = main.event(left - sharing)
        facts.append(told)
        left -= used
    if sharing:
        fact, question = main.sharing()
        facts.append(fact)
    else:
        question = main.question()
    operations = tuple(draw.operations)
    if not second:
        telling = _linked(rng, facts, main.subject)
        return Problem(telling.text, question, operations, "story", marks=tuple(telling.marks))
    side = Draw(rng, max_value)
    things = items if rng.random() < 0.5 else rng.choice(ITEMS)[1]
    other = Thread(rng, side, names.pop(), things, names[:2], False, past)
    aside = [other.opening()] + [other.event(1)[0] for _ in range(rng.randint(0, 2))]
    telling = _plain(_interleave(rng, facts, aside))
    text, marks, side_operations = telling.text, tuple(telling.marks), tuple(side.operations)
    asides = [Problem(text, other.question(), side_operations, "two-stories", marks=marks)] if side_operations else []
    return Problem(text, question, operations, "two-stories", tuple(asides), marks=marks)


def _linked(rng: random.Random, facts: list[Fact], subject: str) -> Telling:
    """One person's events; at times two in one sentence, as in "Tom has 5 pens and finds 3 pens."."""
    telling, opening = Telling(), _sentence(subject) + " "
    for fact in facts:
        if telling.text and fact.text.startswith(opening) and rng.random() < 0.12:
            telling.add(fact, " and ", fact.text[len(opening) :])
        else:
            telling.add(fact)
    return telling


def _interleave(rng: random.Random, first: list[Fact], second: list[Fact]) -> list[Fact]:
    """Both lists in one, each in its own order."""
    places = [0] * len(first) + [1] * len(second)
    rng.shuffle(places)
    sources = (iter(first), iter(second))
    return [next(sources[place]) for place in places]


def _article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def shop(rng: random.Random, n_steps: int, max_value: int) -> Problem:
    """Prices, some stated by relation, in any order; then what somebody buys and is asked for."""
    draw = Draw(rng, max_value)
    goods = rng.sample(ITEMS, 6)
    name = rng.choice(NAMES)
    pronoun = rng.choice((name, "he" if name in MALE else "she"))
    left_question = n_steps >= 2 and rng.random() < 0.4
    two = n_steps - left_question >= 3 and rng.random() < 0.5
    n_relations = n_steps - left_question - (3 if two else 1)

    price: list[tuple[tuple[str, str], Operand]] = []
    facts: list[Fact] = []

    def tell(template: str, record: Draw, cost: Operand, needs: tuple[str, ...] = (), **fields: str | int) -> None:
        item = goods.pop()
        price.append((item, cost))
        text = _sentence(template, a=_article(item[0]), **fields)
        facts.append(Fact(text, record.value(cost), record.depth(cost), item[0], needs))

    def relate(previous: tuple[tuple[str, str], Operand], record: Draw) -> None:
        (base, _), source = previous
        one, b, needs = goods[-1][0], _article(base), (base,)
        kind = rng.choice(("more", "less", "times", "half"))
        if kind == "half" and record.value(source) % 2 == 0:
            return tell("{a} costs half as much as {b}.", record, record.apply("/", source, 2, one), needs, b=b)
        if kind == "times":
            factor = rng.randint(2, 3)
            cost, words = record.apply("*", source, factor, one), rng.choice(TIMES_WORDS[factor])
            return tell("{a} costs {n} as much as {b}.", record, cost, needs, n=words, b=b)
        if kind == "half" or record.value(source) < 4:
            kind = "more"
        number = draw.number() if kind == "more" else record.below(source)
        cost = record.apply("+" if kind == "more" else "-", source, number, one)
        return tell("{a} costs {n} dollars {kind} than {b}.", record, cost, needs, n=number, kind=kind, b=b)

    start = draw.number(2, 12)
    tell("{a} costs {n} dollars.", draw, start, n=start)
    for _ in range(n_relations):
        relate(price[-1], draw)
    count = draw.number(2, 6)
    main = price[-1]
    basket = [(main, count)]
    if two:
        if len(price) == 1:
            second = draw.number(2, 12)
            tell("{a} costs {n} dollars.", draw, second, n=second)
            basket.append((price[1], draw.number(2, 4)))
        else:
            basket.append((price[rng.randrange(len(price) - 1)], draw.number(2, 4)))
    paid = _pay(draw, basket)
    side = draw.copy()
    if rng.random() < 0.4:
        relate(price[n_relations], side)
    rng.shuffle(facts)
    money = 0
    if left_question:
        if draw.value(paid) >= max_value:
            raise Rejected
        money = rng.randint(draw.value(paid) + 1, max_value)
        draw.apply("-", money, paid)
        facts.insert(rng.choice((0, len(facts))), Fact(f"{name} has {money} dollars."))
    told = _plain(facts)
    marks = tuple(told.marks)
    endings = (f"How much does {pronoun} pay?", f"How many dollars does {pronoun} pay?")

    def buys(basket: Basket, asks_left: bool) -> str:
        things = " and ".join(f"{number} {item[1]}" for (item, _), number in basket)
        if asks_left:
            return f"{name} buys {things}. How {rng.choice(('many dollars', 'much'))} does {pronoun} have left?"
        if rng.random() < 0.25:
            return rng.choice(COST_QUESTIONS).format(things=things)
        return f"{name} buys {things}. {rng.choice(endings)}"

    asked = buys(basket, left_question)
    others = []
    for entry in price:
        more = side.copy()
        other = [(entry, rng.randint(2, 6))]
        try:
            quantity = _pay(more, other)
            asks_left = money > more.value(quantity) and rng.random() < 0.5
            if asks_left:
                quantity = more.apply("-", money, quantity)
        except Rejected:
            continue
        operations = needed(more.operations, quantity)
        others.append(Problem(told.text, buys(other, asks_left), operations, "shop", marks=marks))
    return Problem(told.text, asked, tuple(draw.operations), "shop", _distinct(asked, others), marks=marks)


COST_QUESTIONS = (
    "How much do {things} cost?",
    "How many dollars do {things} cost?",
    "How much do {things} cost in total?",
)

Basket = list[tuple[tuple[tuple[str, str], Operand], int]]
"""What is bought: (item, its price) and how many of it."""


def _pay(draw: Draw, basket: Basket) -> Ref:
    """The price of a basket."""
    total: Ref | None = None
    for (_, price), number in basket:
        part = draw.apply("*", price, number)
        total = part if total is None else draw.apply("+", total, part)
    assert total is not None
    return total


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
    told = _plain(facts)
    return Problem(told.text, "What is the result?", tuple(draw.operations), "numbers", marks=tuple(told.marks))


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
    told = _plain([Fact(_sentence(domain.base, a=name, n=number, items=items), number) for name, number in known])
    marks = tuple(told.marks)
    others = []
    for name, number in known:
        ask = rng.choice(domain.asks)
        begun = ask[: ask.index("{a}") + 3]
        for kind, text in (("lookup", ask), ("recall", begun), ("recall", "{a}")):
            asked = _sentence(text, a=name, items=items)
            others.append(Problem(told.text, asked, (), kind, stated=number, marks=marks))
    (a, first), (b, second) = rng.sample(known, 2)
    if domain.difference and first > second and rng.random() < 0.5:
        draw.apply("-", first, second)
        asked = domain.difference.format(a=a, b=b, items=items)
    else:
        draw.apply("+", first, second)
        asked = rng.choice(domain.total).format(a=a, b=b, items=items)
    return Problem(told.text, asked, tuple(draw.operations), "lookup", tuple(others), marks=marks)


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
