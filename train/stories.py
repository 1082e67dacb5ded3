"""What people get and lose in the course of time. Standard library only."""

from __future__ import annotations

import random

from train.lexicon import CONTAINERS, FOOD, ITEMS, MALE, NAMES, PAST
from train.problems import Draw, Operand, Problem, Rejected
from train.telling import Fact, Telling, plain, sentence

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
        return sentence(text)

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
        return _linked(rng, facts, main.subject).ask(question, operations, "story")
    side = Draw(rng, max_value)
    things = items if rng.random() < 0.5 else rng.choice(ITEMS)[1]
    other = Thread(rng, side, names.pop(), things, names[:2], False, past)
    aside = [other.opening()] + [other.event(1)[0] for _ in range(rng.randint(0, 2))]
    telling = plain(_interleave(rng, facts, aside))
    aside_operations = tuple(side.operations)
    others = (telling.ask(other.question(), aside_operations, "two-stories"),) if aside_operations else ()
    return telling.ask(question, operations, "two-stories", others)


def _linked(rng: random.Random, facts: list[Fact], subject: str) -> Telling:
    """One person's events; at times two in one sentence, as in "Tom has 5 pens and finds 3 pens."."""
    telling, opening = Telling(), sentence(subject) + " "
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
