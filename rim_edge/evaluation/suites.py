"""Suites: for each kind of test data its field names, what an answer is, and how it is asked for.

Names and fields are those of the published files: GSM8K (openai/grade-school-math), GSM-Hard
(reasoning-machines/gsm-hard), SVAMP (arkilpatel/SVAMP), MATH-500 (HuggingFaceH4/MATH-500) and GPQA (idavidrein/gpqa).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rim_edge.errors import OptionError

#: what an answer is: a number, mathematics in LaTeX, the letter of a choice, or a number where it looks like one, else
#: text
Kind = Literal["number", "math", "choice", "text"]

_NUMBER_COT = "{question}\nThink step by step. End with a line of this form: #### number"
_MATH_COT = "{question}\nThink step by step, and put the final answer into \\boxed{}."
_CHOICE = "{question}\n\n{choices}\n\nAnswer with the letter of the right choice."
_CHOICE_COT = "{question}\n\n{choices}\n\nThink step by step. End with a line of this form: Answer: letter"


@dataclass(frozen=True)
class Form:
    """Fields in which a row holds its question and its answer.

    Attributes:
        question: fields whose texts, joined by a blank, are the question.
        answer: field of the answer; for a question with choices, of the right one.
        wrong: fields of the wrong choices.
        choices: field with a list of all choices; ``answer`` is then a letter or an index from 0.
    """

    question: tuple[str, ...]
    answer: str
    wrong: tuple[str, ...] = ()
    choices: str | None = None


@dataclass(frozen=True)
class Suite:
    """One kind of data.

    Attributes:
        name: what ``--suite`` calls it.
        kind: what an answer is.
        forms: the forms its rows may have; the first one whose question fields a row has is taken.
        prompt, cot_prompt: texts around ``{question}`` (and ``{choices}``), direct and for chain of thought.
        max_tokens: usual limit of a direct answer.
    """

    name: str
    kind: Kind
    forms: tuple[Form, ...]
    prompt: str = "{question}"
    cot_prompt: str = _NUMBER_COT
    max_tokens: int = 64


_GPQA = Form(("Question",), "Correct Answer", tuple(f"Incorrect Answer {i}" for i in (1, 2, 3)))
_LISTED = Form(("question",), "answer", choices="choices")
_PLAIN = Form(("question",), "answer")
_INPUT = Form(("input",), "target")
_SVAMP = Form(("Body", "Question"), "Answer")
_MATH = Form(("problem",), "answer")
_SOLUTION = Form(("problem",), "solution")

SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite("gsm8k", "number", (_PLAIN,)),
        Suite("gsm-hard", "number", (_INPUT,)),
        Suite("svamp", "number", (_SVAMP, Form(("question_concat",), "Answer"))),
        Suite("math-500", "math", (_MATH, _SOLUTION), cot_prompt=_MATH_COT, max_tokens=128),
        Suite("gpqa", "choice", (_GPQA, _LISTED), prompt=_CHOICE, cot_prompt=_CHOICE_COT, max_tokens=16),
    )
}
#: rows of any of the known forms, when no suite is named
ANY = Suite(
    "any",
    "text",
    (_PLAIN, _INPUT, _MATH, _SVAMP),
    cot_prompt="{question}\nThink step by step. End with a line of this form: #### answer",
)


def find_suite(name: str | None) -> Suite:
    """The suite of that name; None (or ``any``) is the one that takes every known form.

    Raises OptionError for an unknown name.
    """
    if name is None or name == ANY.name:
        return ANY
    if name not in SUITES:
        raise OptionError(f"there is no suite {name!r}: the suites are {', '.join(SUITES)}")
    return SUITES[name]


LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def fill(template: str, question: str, choices: Sequence[str] = ()) -> str:
    """``template`` with ``{question}`` and ``{choices}`` (one per line, ``A) ...``) replaced; other braces stay.

    Raises OptionError where ``{question}`` is missing, or ``{choices}`` although there are some.
    """
    for name, needed in (("{question}", True), ("{choices}", bool(choices))):
        if needed and name not in template:
            raise OptionError(f"the prompt holds no {name}, so the model would never see it: {template!r}")
    listed = "\n".join(f"{LETTERS[i]}) {choice}" for i, choice in enumerate(choices))
    before, _, after = template.partition("{question}")
    return before.replace("{choices}", listed) + question + after.replace("{choices}", listed)
