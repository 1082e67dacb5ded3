"""Reading a formula in LaTeX (or plain text) into sympy, by a parser of our own: nothing is evaluated as Python.

Arithmetic, powers, fractions, roots, absolute values, factorials, the usual functions, pi, e, i and infinity, Greek and
indexed variables. Powers and factorials whose values would be huge are refused, so that no answer takes long.
"""

from __future__ import annotations

import re
from typing import Any

import sympy

_FUNCTIONS = {
    **{name: getattr(sympy, name) for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")},
    "exp": sympy.exp,
    "arcsin": sympy.asin,
    "arccos": sympy.acos,
    "arctan": sympy.atan,
    "ln": sympy.log,
    "log": sympy.log,
}
_GREEK = re.compile(
    r"\\(alpha|beta|gamma|delta|(?:var)?epsilon|zeta|eta|(?:var)?theta|iota|kappa|lambda|mu|nu|xi|rho|sigma|tau|"
    r"(?:var)?phi|chi|psi|omega|Gamma|Delta|Theta|Lambda|Xi|Sigma|Phi|Psi|Omega)(?![a-zA-Z])"
)
_CONSTANTS = {"pi": sympy.pi, "infty": sympy.oo}
_TIMES, _OVER = ("\\cdot", "\\times", "*"), ("\\div", "/")
_MOST_DIGITS = 2000.0  # of a power
_DIGITS = 30
_DEEPEST = 40


class FormulaError(ValueError):
    """The text is no formula that can be read, or one too large to compute."""


def read(text: str) -> Any:
    """The sympy expression that ``text`` writes. Raises FormulaError."""
    try:
        reader = _Reader(text)
        value = reader.sum()
        reader.end()
        return value
    except FormulaError:
        raise
    except (ArithmeticError, ValueError, TypeError, AttributeError, RecursionError, MemoryError) as error:
        raise FormulaError(f"{text!r}: {error}") from None


def same(left: Any, right: Any) -> bool:
    """Whether two expressions have the same value, with variables: at each of several points. Raises FormulaError."""
    try:
        if left == right:
            return True
        names = sorted(left.free_symbols | right.free_symbols, key=str)
        points = [
            {name: sympy.Float(7 * k + 3 * i + 5, 60) / (11 + i) for i, name in enumerate(names)} for k in range(4)
        ]
        return all(_near(left - right, point, scale=right) for point in (points if names else [{}]))
    except (ArithmeticError, ValueError, TypeError, AttributeError, RecursionError, MemoryError) as error:
        raise FormulaError(str(error)) from None


def _near(difference: Any, point: dict[Any, Any], scale: Any = 0) -> bool:
    gap = abs(sympy.N(difference.subs(point), _DIGITS, maxn=200))
    size = abs(sympy.N(sympy.sympify(scale).subs(point), _DIGITS, maxn=200))
    if not gap.is_number or not gap.is_finite:
        return False
    return bool(gap <= sympy.Float("1e-20") * (1 + (size if size.is_finite else 0)))


class _Reader:
    """A recursive-descent parser; ``at`` is the next character of ``text``."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth = text, 0, 0

    # ---- characters --------------------------------------------------------------------------------------------------

    def skip(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def ahead(self, word: str) -> bool:
        self.skip()
        if not self.text.startswith(word, self.at):
            return False
        after = self.text[self.at + len(word) : self.at + len(word) + 1]
        return not (word[-1].isalpha() and len(word) > 1 and after.isalpha())

    def take(self, *words: str) -> str | None:
        for word in words:
            if self.ahead(word):
                self.at += len(word)
                return word
        return None

    def need(self, word: str) -> None:
        if self.take(word) is None:
            raise FormulaError(f"{self.text!r}: expected {word} at {self.at}")

    def end(self) -> None:
        self.skip()
        if self.at != len(self.text):
            raise FormulaError(f"{self.text!r}: cannot read {self.text[self.at :]!r}")

    # ---- grammar -----------------------------------------------------------------------------------------------------

    def sum(self) -> Any:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise FormulaError("too deep")
        value = self.product()
        while sign := self.take("+", "-"):
            term = self.product()
            value = value + term if sign == "+" else value - term
        self.depth -= 1
        return value

    def product(self) -> Any:
        value = self.signed()
        while True:
            if self.take("**"):
                raise FormulaError("power out of place")
            if self.take(*_TIMES):
                value = value * self.signed()
            elif self.take(*_OVER):
                value = value / self.signed()
            elif self.starts_factor():
                value = value * self.power()
            else:
                return value

    def signed(self) -> Any:
        negative = False
        while sign := self.take("-", "+"):
            negative ^= sign == "-"
        value = self.power()
        return -value if negative else value

    def starts_factor(self) -> bool:
        self.skip()
        rest = self.text[self.at :]
        if not rest or rest.startswith(("\\right", "\\rbrace", "\\cup", "\\pm", "\\le", "\\ge")):
            return False
        return rest[0].isalnum() or rest[0] in "({\\."

    def power(self) -> Any:
        value = self.atom()
        while True:
            if self.take("!"):
                if not (value.is_Integer and 0 <= value <= 500):
                    raise FormulaError("factorial out of range")
                value = sympy.factorial(value)
            elif self.take("^", "**"):
                value = _power(value, self.argument())
            else:
                return value

    def argument(self) -> Any:
        """What follows ``^``: a group, a command, a letter or, other than in LaTeX, a whole number: ``2^10``."""
        if self.take("{"):
            value = self.sum()
            self.need("}")
            return value
        negative = self.take("-") is not None
        value = self.atom()
        return -value if negative else value

    def number(self) -> Any:
        start = self.at
        while self.text[self.at : self.at + 1].isdigit() or self.text[self.at : self.at + 1] == ".":
            self.at += 1
        digits = self.text[start : self.at]
        if digits.count(".") > 1 or digits == "." or len(digits) > 300 or not digits.isascii():
            raise FormulaError(f"{digits!r} is no number")
        return sympy.Rational(digits)

    def atom(self) -> Any:
        self.skip()
        here = self.text[self.at : self.at + 1]
        if here.isdigit() or here == ".":
            return self.number()
        for opening, closing in (("(", ")"), ("[", "]"), ("{", "}"), ("|", "|"), ("\\lvert", "\\rvert")):
            if self.take(opening):
                value = self.sum()
                self.need(closing)
                return sympy.Abs(value) if closing in ("|", "\\rvert") else value
        if self.take("\\frac", "\\cfrac"):
            above = self.part()
            return above / self.part()
        if self.take("\\sqrt", "sqrt"):
            degree: Any = sympy.Integer(2)
            if self.take("["):
                degree = self.sum()
                self.need("]")
            return _power(self.part(), 1 / degree)
        for name, function in _FUNCTIONS.items():
            if self.take("\\" + name, name):
                return self.function(name, function)
        for name, value in _CONSTANTS.items():
            if self.take("\\" + name, name):
                return value
        if greek := _GREEK.match(self.text, self.at):
            self.at = greek.end()
            return self.symbol(greek[1])
        if here.isalpha() and here.isascii():
            self.at += 1
            return sympy.I if here == "i" else sympy.E if here == "e" else self.symbol(here)
        raise FormulaError(f"{self.text!r}: cannot read {self.text[self.at :]!r}")

    def part(self) -> Any:
        """What follows ``\\frac`` or ``\\sqrt``: a group, a command, a letter, or one digit."""
        self.skip()
        if self.text[self.at : self.at + 1].isdigit():
            self.at += 1
            return sympy.Integer(int(self.text[self.at - 1]))
        return self.atom()

    def function(self, name: str, function: Any) -> Any:
        base = self.part() if name == "log" and self.take("_") else None
        exponent = self.argument() if self.take("^") else None
        self.skip()
        if self.text[self.at : self.at + 1] in ("(", "{"):
            inner = self.atom()
        else:  # \sin 2x
            inner = self.power()
            while self.starts_factor() and not self.ahead("\\"):
                inner = inner * self.power()
        if name == "exp":
            value = _power(sympy.E, inner)
        else:
            value = function(inner, base) if base is not None else function(inner)
        return value if exponent is None else _power(value, exponent)

    def symbol(self, name: str) -> Any:
        if self.take("_"):
            start = self.at
            if self.take("{"):
                self.at = self.text.find("}", self.at) + 1 or len(self.text)
            else:
                self.at += 1
            name += "_" + self.text[start : self.at].strip("{}")
        return sympy.Symbol(name)


def _power(base: Any, exponent: Any) -> Any:
    """``base ** exponent``, refused where it would be huge."""
    if exponent.free_symbols:
        if exponent.has(sympy.Pow) or exponent.count_ops() > 8:
            raise FormulaError("tower of powers")
        return base**exponent
    size = abs(sympy.N(exponent, 10))
    if not size.is_finite:
        return base**exponent
    digits = 1.0
    number = base.as_coeff_Mul()[0] if base.free_symbols else base  # (2x)^n is computed as 2^n x^n
    if not base.free_symbols:
        value = abs(sympy.N(base, 10))
        if value.is_finite and value > 0:
            digits = max(abs(float(sympy.log(value, 10))), 0.5)
    if number.is_Rational:
        digits = max(digits, len(str(number.p)), len(str(number.q)))
    if float(size) * digits > _MOST_DIGITS:
        raise FormulaError("a power too large")
    return base**exponent
