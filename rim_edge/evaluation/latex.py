"""Comparing mathematics written in LaTeX: by its spelling first, then by its value, which sympy computes.

The text comes from a model, so nothing of it is ever evaluated as Python: :mod:`rim_edge.evaluation.formula` reads it.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any

from rim_edge.errors import UnsupportedError
from rim_edge.evaluation.numbers import only_number

_LONGEST = 400  # characters; longer answers are compared by spelling alone
_DROPPED = re.compile(
    r"\\(?:left|right|displaystyle|limits|[bB]igg?[lr]?|degree|mathstrut)(?![a-zA-Z])|(?<!\\)\\[!,;: ]|"
    r"\^\s*\{?\s*\\circ\s*\}?|\\?%|\\\$|\$|~"
)
_MIXED = re.compile(r"(?<![\w}.^)\]])([0-9]+)\\frac\{?([0-9]+)\}?\{?([0-9]+)\}?")  # 3\frac{1}{2} is three and a half
_TEXT = re.compile(r"\\(?:text|mbox|textbf|textit|mathrm|mathbf|operatorname)\s*\{([^{}]*)\}")
_MATRIX = re.compile(r"\\begin\{[pbvBV]?matrix\}(.*?)\\end\{[pbvBV]?matrix\}", re.DOTALL)
_NAME = re.compile(r"(?:[a-zA-Z]|\\[a-zA-Z]+)(?:_\{?\w\}?)?(?:\([a-zA-Z]\))?")
_PAIRS = {"(": ")", "[": "]", "{": "}"}


def check_installed() -> None:
    """Raise UnsupportedError where sympy is missing."""
    if find_spec("sympy") is None:
        raise UnsupportedError(
            "answers in mathematics are compared with sympy, which is not installed: pip install 'rim-edge[eval]'"
        )


def equal(given: str, wanted: str) -> bool:
    """Whether two formulas are the same.

    They are where they are spelled alike (up to spacing, ``\\left``, ``\\dfrac``, units in ``\\text{}``, degrees,
    currency), are the same number, have equal parts (lists, tuples, intervals and their unions, matrices, both sides of
    an equation; ``x = 5`` is ``5``), or have the same value: expressions are evaluated to 30 digits, those with
    variables at several points.

    Raises UnsupportedError where sympy is needed and not installed.
    """
    left, right = normal(given), normal(wanted)
    if left == right:
        return bool(left)
    if len(left) > _LONGEST or len(right) > _LONGEST:
        return False
    return _equal(left, right)


def normal(text: str) -> str:
    """``text`` in one spelling: without blanks, bracket sizes and units, braces around one character dropped."""
    text = text.strip().strip("$").strip()
    text = text.replace("\u2212", "-").replace("{,}", ",").replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    text = text.replace("\\{", "\\lbrace ").replace("\\}", "\\rbrace ")
    text = _DROPPED.sub("", text)
    bare = _TEXT.sub("", text).strip(" .,")
    text = bare if bare else _TEXT.sub(r"\1", text)
    # a blank ends a command, all others mean nothing
    text = re.sub(r"(\\[a-zA-Z]+)\s+(?=[a-zA-Z])|\s+", lambda match: f"{match[1]} " if match[1] else "", text)
    if re.fullmatch(r"-?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?\.?", text):
        text = text.replace(",", "")
    text = re.sub(r"([_^])\{(\w)\}(?![0-9])", r"\1\2", text)
    text = _MIXED.sub(r"(\1+\\frac{\2}{\3})", text)
    return re.sub(r"^[a-zA-Z]\\in ?", "", text).rstrip(".")


def _equal(left: str, right: str) -> bool:
    if left == right:
        return True
    if _words(left) or _words(right):
        return left.casefold() == right.casefold()
    a, b = only_number(left, units=False), only_number(right, units=False)
    if a is not None and b is not None:
        return a.value == b.value
    if "\\pm" in left or "\\pm" in right:
        return _same_set(_signs(left), _signs(right))
    matrices = _MATRIX.fullmatch(left), _MATRIX.fullmatch(right)
    if any(matrices):
        return all(matrices) and _same_rows(str(matrices[0] and matrices[0][1]), str(matrices[1] and matrices[1][1]))
    for separator in ("\\cup", "="):
        if separator in left or separator in right:
            return _same_sides(left, right, separator)
    parts_left, parts_right = split(left, ","), split(right, ",")
    if len(parts_left) > 1 or len(parts_right) > 1:
        return _same_set(parts_left, parts_right)
    inner_left, inner_right = _inside(left), _inside(right)
    if inner_left is not None and inner_right is not None:
        if inner_left[:2] != inner_right[:2]:
            return False
        items_left, items_right = split(inner_left[2], ","), split(inner_right[2], ",")
        if inner_left[0] == "\\lbrace":
            return _same_set(items_left, items_right)
        return len(items_left) == len(items_right) and all(map(_equal, items_left, items_right))
    return _same_value(left, right)


def _words(text: str) -> bool:
    """Whether ``text`` is words, not a formula: a name, a weekday."""
    return re.fullmatch(r"[A-Za-z]{4,}", text) is not None


def split(text: str, separator: str) -> list[str]:
    """``text`` cut at each ``separator`` that is in no brackets."""
    parts, depth, start, at = [], 0, 0, 0
    while at < len(text):
        if text[at] in "([{" or text.startswith("\\lbrace", at):
            depth += 1
        elif text[at] in ")]}" or text.startswith("\\rbrace", at):
            depth -= 1
        elif depth <= 0 and text.startswith(separator, at):
            parts.append(text[start:at].strip())
            start = at + len(separator)
            at = start - 1
        at += 1
    return [*parts, text[start:].strip()]


def _inside(text: str) -> tuple[str, str, str] | None:
    """(opening, closing, what is between) of a tuple, an interval or a set; None for anything else."""
    if text.startswith("\\lbrace") and text.endswith("\\rbrace"):
        return "\\lbrace", "\\rbrace", text[len("\\lbrace") : -len("\\rbrace")].strip()
    if len(text) > 2 and text[0] in "([" and text[-1] in ")]" and len(split(text[1:-1], ",")) > 1:
        return text[0], text[-1], text[1:-1]
    return None


def _same_set(left: list[str], right: list[str]) -> bool:
    """Whether each of ``left`` has a partner of its own in ``right``."""
    rest = list(right)
    for item in left:
        partner = next((i for i, other in enumerate(rest) if _equal(item, other)), None)
        if partner is None:
            return False
        del rest[partner]
    return not rest


def _same_rows(left: str, right: str) -> bool:
    rows_left, rows_right = left.split("\\\\"), right.split("\\\\")
    cells_left = [[cell.strip() for cell in row.split("&")] for row in rows_left if row.strip()]
    cells_right = [[cell.strip() for cell in row.split("&")] for row in rows_right if row.strip()]
    return [len(row) for row in cells_left] == [len(row) for row in cells_right] and all(
        _equal(a, b)
        for row_left, row_right in zip(cells_left, cells_right, strict=True)
        for a, b in zip(row_left, row_right, strict=True)
    )


def _same_sides(left: str, right: str, separator: str) -> bool:
    parts_left, parts_right = split(left, separator), split(right, separator)
    if separator == "\\cup":
        return len(parts_left) > 0 and len(parts_left) == len(parts_right) and _same_set(parts_left, parts_right)
    if len(parts_left) != len(parts_right):  # x = 5 against 5
        for parts in (parts_left, parts_right):
            if len(parts) == 2 and _NAME.fullmatch(parts[0]):
                del parts[0]
    if len(parts_left) != len(parts_right):
        return False
    if parts_left == [left] and parts_right == [right]:
        return False  # the separator stands in brackets alone
    return _same_set(parts_left, parts_right) if len(parts_left) == 2 else all(map(_equal, parts_left, parts_right))


def _signs(text: str) -> list[str]:
    if "\\pm" not in text:
        return split(text, ",")
    return [re.sub(r"\\pm\s*", sign, text, count=1) for sign in ("+", "-")]


def _same_value(left: str, right: str) -> bool:
    check_installed()
    from rim_edge.evaluation.formula import FormulaError, read, same

    try:
        a: Any = read(left)
        b: Any = read(right)
        return same(a, b)
    except FormulaError:
        return False
