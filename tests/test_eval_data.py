"""Reading test data: the forms of the known suites, and every way a file can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rim_edge.errors import RimError
from rim_edge.evaluation.data import DataError, Problem, read_problems


def read(tmp_path: Path, text: str | bytes, suite: str | None = None, name: str = "data.jsonl") -> list[Problem]:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_problems(path, suite)


def test_any_known_form(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"question": "a", "answer": "1 + 1 = <<1+1=2>>2\n#### 2", "id": 7},
        {"question": "b", "answer": "Paris"},
        {"input": "c", "target": 3.50},
        {"question": "d"},
    ]
    text = "\ufeff" + "\n\n".join(map(json.dumps, rows)).replace("3.5", "3.50") + "\n"
    assert read(tmp_path, text) == [
        Problem(1, "a", "2", id="7"),
        Problem(3, "b", "Paris"),
        Problem(5, "c", "3.50"),
        Problem(7, "d", None),
    ]


@pytest.mark.parametrize(
    ("suite", "row", "problem"),
    [
        ("gsm8k", {"question": "q", "answer": "so\n#### 1,000"}, Problem(1, "q", "1,000")),
        ("gsm-hard", {"input": "q", "code": "", "target": -9867630.0}, Problem(1, "q", "-9867630.0")),
        (
            "svamp",
            {"ID": "chal-1", "Body": "B.", "Question": "Q?", "Equation": "( 8 )", "Answer": 8.0},
            Problem(1, "B. Q?", "8.0", id="chal-1"),
        ),
        (
            "math-500",
            {"problem": "q", "solution": "", "answer": "\\frac{1}{2}", "unique_id": "test/a.json"},
            Problem(1, "q", "\\frac{1}{2}", id="test/a.json"),
        ),
        ("math-500", {"problem": "q", "solution": "so $\\boxed{\\frac{1}{2}}$."}, Problem(1, "q", "\\frac{1}{2}")),
    ],
)
def test_suites(tmp_path: Path, suite: str, row: dict[str, Any], problem: Problem) -> None:
    assert read(tmp_path, json.dumps(row), suite) == [problem]
    assert read(tmp_path, json.dumps([row], indent=1), suite, "data.json") == [problem]


def test_gpqa_choices_are_shuffled_by_the_seed(tmp_path: Path) -> None:
    path = tmp_path / "gpqa.csv"
    head = "Record ID,Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3\n"
    path.write_text(head + "".join(f'r{i},"Which\none?",right,"a, b",c,d\n' for i in range(20)))
    problems = read_problems(path, "gpqa", seed=3)
    assert [problem.line for problem in problems[:3]] == [2, 4, 6]
    for problem in problems:
        assert sorted(problem.choices) == ["a, b", "c", "d", "right"]
        assert problem.answer is not None and problem.choices["ABCD".index(problem.answer)] == "right"
    assert {problem.answer for problem in problems} == set("ABCD")
    assert problems == read_problems(path, "gpqa", seed=3)
    assert problems != read_problems(path, "gpqa", seed=4)


def test_listed_choices(tmp_path: Path) -> None:
    for answer in ("C", 2):
        (problem,) = read(tmp_path, json.dumps({"question": "q", "choices": ["a", "b", "c"], "answer": answer}), "gpqa")
        assert problem.answer is not None and problem.choices["ABC".index(problem.answer)] == "c"


@pytest.mark.parametrize(
    ("text", "suite", "message"),
    [
        ('{"question": "a", "answer": "1"}\n\n{bad\n', None, "line 3, column 2: not JSON (Expecting property name"),
        ('{"question": "a", "answer": NaN}', None, "line 1: not JSON (NaN is no JSON value)"),
        ("[" * 100_000, None, "not JSON"),
        ('["a"]', None, "entry 1: expected a JSON object, this is text"),
        ('[\n{"question": "a"},\n{"question": 5 5}]', None, "line 3, column 16: not JSON"),
        ("7", None, "line 1: expected a JSON object, this is a number"),
        ("", None, "holds no problem: it is empty"),
        ("\n \n", None, "holds no problem: it is empty"),
        (b'{"question": "a"}\n{"question": "\xff"}', None, "line 2: not valid UTF-8"),
        ('{"text": "a"}', None, "line 1: no question, expected the field 'question' or 'input'"),
        ('{"question": " "}', None, "line 1: the question is empty"),
        ('{"question": ["a"]}', None, "line 1: the field 'question' is a list, expected text"),
        ('{"question": "a", "answer": true}', None, "line 1: the field 'answer' is true or false, expected text"),
        ('{"question": "a", "answer": "blue"}', "gsm8k", "line 1: the answer 'blue' holds no number, as gsm8k needs"),
        ('{"question": "a", "answer": "1"}', "svamp", "expected the field 'Body' and 'Question'"),
        ('{"problem": "a", "solution": "b"}', "math-500", "line 1: the solution has no \\boxed{} answer"),
        ('{"question": "a", "choices": ["b"], "answer": "A"}', "gpqa", "expected a list of 2 to 26 texts"),
        ('{"question": "a", "choices": ["b", "c"], "answer": "C"}', "gpqa", "the answer 'C' is no choice"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str | bytes, suite: str | None, message: str) -> None:
    with pytest.raises(DataError) as error:
        read(tmp_path, text, suite)
    assert message in str(error.value) and str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_wrong_csv(tmp_path: Path) -> None:
    head = "Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3\n"
    with pytest.raises(DataError, match="line 2: the field 'Incorrect Answer 3' is missing"):
        read(tmp_path, head + "q,a,b,c\n", "gpqa", "data.csv")
    with pytest.raises(DataError, match="line 2: more cells than the 5 in the head"):
        read(tmp_path, head + "q,a,b,c,d,e\n", "gpqa", "data.csv")


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(RimError, match="No such file"):
        read_problems(tmp_path / "missing.jsonl")
    with pytest.raises(RimError, match="is a folder"):
        read_problems(tmp_path)
