"""Answers: finding the final one in what a model wrote, and telling whether it is the right one.

What counts in a text, by the kind of the suite (:mod:`rim_edge.evaluation.suites`), the first that is there:

- every kind: group 1 of the model's own ``rim.answer_pattern``, where one is given;
- ``number``: the number after the last ``####``; in the last ``\\boxed{}``; after the last "answer is", "answer:"; the
  last number of all;
- ``math``: the last ``\\boxed{}``; what stands after the last ``####`` or "answer is"; a text of one short line; the
  last ``$...$``; the last number;
- ``choice``: the letter in the last ``\\boxed{}``; after the last "answer is"; at the very beginning, or alone on the
  last line that has one; the last one in parentheses;
- ``text``: what stands after the last ``####``, in ``\\boxed{}``, after "answer is"; the last line that is not empty.
"""

from __future__ import annotations

import re

from rim_edge.evaluation import latex
from rim_edge.evaluation.numbers import close, find_numbers, last_number, only_number, plain, written
from rim_edge.evaluation.suites import find_suite
from rim_edge.loop import find_value

_MARK = re.compile(r"####[ \t]*([^\n]*)")
_SAID = re.compile(r"\b(?:answer|result)\b[ \t*_]*(?:is|are|:|=)[ \t*_:]*([^\n]+)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$|\*)")
_LETTER = r"[(\[*]*([A-Z])(?![\w'])[)\]*]*"
_LETTER_FIRST = re.compile(rf"\s*{_LETTER}\s*(?:$|\n|[.:,)])")
_LETTER_LINE = re.compile(rf"^[ \t]*{_LETTER}[ \t]*[.:)]?[ \t]*$", re.MULTILINE)
_LETTER_MARKED = re.compile(r"\(([A-Z])\)")
_SHORT = 120  # characters of a text that can be nothing but its answer


def extract(text: str, suite: str | None = None, *, pattern: str | None = None) -> str | None:
    """The final answer in ``text``, None where there is none.

    Args:
        text: what the model wrote.
        suite: name of the suite, None for any (see :func:`rim_edge.evaluation.suites.find_suite`).
        pattern: the model's ``rim.answer_pattern``; where it does not match, the suite's rules apply.

    Raises OptionError for an unknown suite.
    """
    kind = find_suite(suite).kind
    value = find_value(pattern, text)
    if value:
        return value
    if kind == "number":
        return _number(text)
    if kind == "choice":
        return _choice(text)
    if kind == "math":
        return _math(text)
    return _text(text)


def equal(given: str | None, wanted: str, suite: str | None = None) -> bool:
    """Whether ``given``, out of :func:`extract`, is the answer ``wanted``; False for None.

    Numbers up to rounding (:func:`rim_edge.evaluation.numbers.close`), mathematics by value
    (:func:`rim_edge.evaluation.latex.equal`), choices by letter, other text without regard to case and punctuation.

    Raises UnsupportedError where mathematics is compared and sympy is not installed.
    """
    kind = find_suite(suite).kind
    if given is None:
        return False
    if kind == "math":
        return latex.equal(given, wanted)
    if kind == "choice":
        return given.strip(" ()[].*").upper() == wanted.strip(" ()[].*").upper()
    right = only_number(wanted) or (last_number(wanted) if kind == "number" else None)
    if right is not None:
        found = only_number(given) or last_number(given)
        return found is not None and close(found, right)
    return _words(given) == _words(wanted)


def boxed(text: str) -> str | None:
    """What the last ``\\boxed{...}`` (or ``\\fbox``) holds, braces inside it matched; None where there is none."""
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if start < 0:
        return None
    opening = text.find("{", start)
    if opening < 0:
        rest = text[start + len("\\boxed") :].split("$")[0].split()  # \boxed 5
        return rest[0] if rest else None
    depth = 0
    for at in range(opening, len(text)):
        if text[at] == "\\" and text[at + 1 : at + 2] in ("{", "}"):
            continue
        if text[at] == "{" and text[at - 1] != "\\":
            depth += 1
        elif text[at] == "}" and text[at - 1] != "\\":
            depth -= 1
            if depth == 0:
                return text[opening + 1 : at].strip()
    return None


def marked(text: str) -> str | None:
    """What stands after the last ``####``, to the end of its line; None without such a mark."""
    found = _MARK.findall(text)
    return found[-1].strip() if found else None


def _said(text: str) -> str | None:
    """What stands after the last "answer is" (or "answer:"), to the end of the sentence."""
    found = _SAID.findall(text)
    return _SENTENCE_END.split(found[-1], maxsplit=1)[0].strip() if found else None


def _number(text: str) -> str | None:
    for part in (marked(text), boxed(text), _said(text)):
        if part is None:
            continue
        numbers = list(find_numbers(plain(part)))
        if numbers:  # in "5 + 3 = 8" the last one counts, in "8 (of 20)" the first
            return written(numbers[-1 if "=" in part else 0], part)
    last = last_number(text)
    return None if last is None else written(last, text)


def _choice(text: str) -> str | None:
    for part in (boxed(text), _said(text)):
        if part is not None and (match := re.match(_LETTER, re.sub(r"\\text\s*\{|[{}]", "", part).strip())):
            return match[1]
    if match := _LETTER_FIRST.match(text):
        return match[1]
    lines = _LETTER_LINE.findall(text) or _LETTER_MARKED.findall(text)
    return lines[-1] if lines else None


def _math(text: str) -> str | None:
    for part in (boxed(text), marked(text), _said(text)):
        if part:
            return part.strip().strip("$").strip()
    line = text.strip()
    if line and len(line) <= _SHORT and "\n" not in line:
        return line.strip("$").strip()
    formulas = re.findall(r"\$([^$]+)\$", text)
    if formulas:
        return str(formulas[-1]).strip()
    last = last_number(text)
    return None if last is None else written(last, text)


def _text(text: str) -> str | None:
    for part in (marked(text), boxed(text), _said(text)):
        if part:
            return part
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else None


def _words(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .,;:!?\"'`*()")
