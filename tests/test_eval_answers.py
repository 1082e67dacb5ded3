"""Finding the final answer in a text, and telling whether it is the right one."""

from __future__ import annotations

import sys

import pytest

from rim_edge.errors import OptionError, UnsupportedError
from rim_edge.evaluation import latex
from rim_edge.evaluation.answers import equal, extract


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("7", "7"),
        ("16 - 3 - 4 = 9, 9 * 2 = 18.\n#### 1,234 dollars", "1,234"),
        ("The answer is $-5.50. I am sure about all 3 steps.", "$-5.50"),
        ("The answer is: 5 + 3 = 8", "8"),
        ("We get \\boxed{1,200} of 7", "1,200"),
        ("it is 3/4 of it", "3/4"),
        ("1 1/2 cups", "1 1/2"),
        ("an area of 12 m^2", "12"),
        ("an area of 12 m2", "12"),
        ("costs $18.", "$18"),
        ("from 3-5", "5"),
        ("1.5 \\times 10^{3}", "1.5 * 10^{3}"),
        ("x = \u22125", "-5"),
        ("12,345,678 people", "12,345,678"),
        ("no idea", None),
        ("", None),
    ],
)
def test_number(text: str, found: str | None) -> None:
    assert extract(text, "gsm8k") == found


@pytest.mark.parametrize(
    ("given", "wanted", "same"),
    [
        ("1,200", "1200.0", True),
        ("$18", "18", True),
        ("18 dollars", "18", True),
        ("50%", "50", True),
        ("1/2", "0.5", True),
        ("0.3333", "0.3333333333", True),
        ("2234567.33", "2234567.3333", True),
        ("14864237", "14864237.0", True),
        ("1.5e3", "1500", True),
        ("17", "18", False),
        ("0", "0.0004", False),
        ("1000000001", "1000000000", False),
        ("-5", "5", False),
        ("5/0", "5", False),
    ],
)
def test_equal_numbers(given: str, wanted: str, same: bool) -> None:
    assert equal(given, wanted, "gsm-hard") is same


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("B) because", "B"),
        ("**D**", "D"),
        ("The answer is (C).", "C"),
        ("I think (A) is wrong.\nAnswer: D", "D"),
        ("\\boxed{\\text{B}}", "B"),
        ("Hence\nC\n", "C"),
        ("A cat sat", None),
    ],
)
def test_choice(text: str, letter: str | None) -> None:
    assert extract(text, "gpqa") == letter


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        ("so \\boxed{\\frac{1}{2}} and \\boxed{\\left\\{x^{2}\\right\\}}.", "\\left\\{x^{2}\\right\\}"),
        ("$x+1$", "x+1"),
        ("First.\nThe answer is $2\\pi$.", "2\\pi"),
        ("We add $1$\nand get $y^2$ from it", "y^2"),
    ],
)
def test_math(text: str, formula: str) -> None:
    assert extract(text, "math-500") == formula


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("\\frac{14}{3}", "14/3"),
        ("\\dfrac43", "\\frac{4}{3}"),
        ("0.5", "\\frac12"),
        ("3\\frac{1}{2}", "7/2"),
        ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3,\\pi/2)"),
        ("q - p", "-p+q"),
        ("(x+1)^2", "x^2+2x+1"),
        ("\\frac{1}{x-1}", "-1/(1-x)"),
        ("x = 5", "5"),
        ("y=2x+3", "y = 3 + 2x"),
        ("-2,1", "1,-2"),
        ("1 \\pm \\sqrt2", "1+\\sqrt{2}, 1-\\sqrt{2}"),
        ("\\{3,1,2\\}", "\\{1,2,3\\}"),
        ("(3,\\infty)\\cup(-\\infty,2)", "(-\\infty, 2) \\cup (3, \\infty)"),
        ("x \\in [-2,7]", "[-2,7]"),
        ("\\begin{pmatrix}-2\\\\1\\end{pmatrix}", "\\begin{pmatrix} -4/2 \\\\ 1 \\end{pmatrix}"),
        ("10,080", "10080"),
        ("\\$18.90", "18.9"),
        ("36^\\circ", "36"),
        ("5.4", "5.4 \\text{ cents}"),
        ("\\text{Evelyn}", "Evelyn"),
        ("\\text{(C)}", "C"),
        ("\\sqrt{8}", "2\\sqrt2"),
        ("\\sin^2 x + \\cos^2 x", "1"),
        ("\\log_2 8", "3"),
        ("e^{i\\pi}", "-1"),
        ("6-5i", "-5i+6"),
        ("2^{10}", "1024"),
        ("4210_5", "4210_{5}"),
    ],
)
def test_equal_formulas(left: str, right: str) -> None:
    assert equal(left, right, "math-500") and equal(right, left, "math-500")


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("[-2,7]", "(-2,7)"),
        ("2x", "2"),
        ("2^3", "2"),
        ("\\pi", "3.14159265358979"),
        ("4210", "4210_5"),
        ("(a,b)", "(b,a)"),
        ("C", "D"),
        ("1,2", "1,2,3"),
        ("9^{9^{9^9}}", "1"),  # none of these takes long
        ("x^{x^{x^x}}", "1"),
        ("100000!", "1"),
        ("((2^{1000})^{1000})^{1000}", "1"),
        ("(((2x)^{1000})^{1000})^{1000}", "1"),
        ("((x^{1000})^{1000})^{1000}", "x^2"),
        ("(" * 3000, "1"),
        ("__import__('os').system('true')", "1"),
        ("", ""),
    ],
)
def test_different_formulas(left: str, right: str) -> None:
    assert not equal(left, right, "math-500") and not equal(right, left, "math-500")


def test_text_and_numbers_without_a_suite() -> None:
    assert equal("The total is 18 dollars.", "18")
    assert equal(" Paris. ", "paris")
    assert not equal("London", "Paris") and not equal(None, "Paris")
    assert extract("I add.\nParis\n") == "Paris"
    assert extract("#### Paris\nDone.") == "Paris"


def test_the_models_pattern_comes_first() -> None:
    assert extract("3 then 4", "gsm8k", pattern=r"(-?\d+)") == "3"
    assert extract("3 then 4", "gsm8k", pattern=r"<(\d+)>") == "4"


def test_unknown_suite() -> None:
    with pytest.raises(OptionError, match="there is no suite 'gsm': the suites are gsm8k, gsm-hard"):
        extract("1", "gsm")


def test_without_sympy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sympy", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'rim-edge\[eval\]'"):
        latex.equal("x+1", "1+x")
