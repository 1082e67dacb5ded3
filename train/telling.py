"""The facts of a problem as a text that grows sentence by sentence, with marks of what a reader knows where.

Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass

from train.problems import Mark, Operation, Problem

TIMES_WORDS = {2: ("twice", "2 times"), 3: ("3 times",), 4: ("4 times",), 5: ("5 times",)}


def sentence(template: str, **fields: str | int) -> str:
    text = template.format(**fields)
    return text[0].upper() + text[1:]


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

    def ask(
        self,
        asked: str,
        operations: tuple[Operation, ...],
        kind: str,
        others: tuple[Problem, ...] = (),
        stated: int = 0,
    ) -> Problem:
        """A problem about the facts told so far."""
        return Problem(self.text, asked, operations, kind, others, stated, tuple(self.marks))

    @property
    def sentence(self) -> str:
        """The last sentence."""
        return self.text.rpartition(".")[0].rpartition(".")[2]


def plain(facts: list[Fact]) -> Telling:
    """Every fact a sentence of its own."""
    telling = Telling()
    for fact in facts:
        telling.add(fact)
    return telling


def distinct(asked: str, others: list[Problem]) -> tuple[Problem, ...]:
    """``others`` without those that ask the same as ``asked`` or as an earlier one."""
    return tuple({other.asked: other for other in others if other.asked != asked}.values())
