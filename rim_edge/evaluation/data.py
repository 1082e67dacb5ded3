"""Reading test data: JSON lines, a JSON list, or CSV, in the forms that :mod:`rim_edge.evaluation.suites` knows."""

from __future__ import annotations

import csv
import io
import json
import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from rim_edge.errors import RimError
from rim_edge.evaluation.answers import boxed, marked
from rim_edge.evaluation.numbers import last_number, only_number
from rim_edge.evaluation.suites import LETTERS, Form, Suite, find_suite

Row = tuple[int, str, Mapping[str, Any]]  # its number, in words, its fields


class DataError(RimError):
    """The data cannot be used; the message names the file and the line."""


@dataclass(frozen=True)
class Problem:
    """One question and what is known about its answer.

    Attributes:
        line: where it stands in the file: line from 1; number of the entry, from 1, in a JSON list.
        question: the question, without prompt and choices.
        answer: the final answer alone (GSM8K: what follows ``####``); the letter of the right choice; None where the
            row has none.
        choices: the choices in the order in which they are shown, empty where the question has none.
        id: what the row calls itself (``id``, ``unique_id``, ``ID``, ``Record ID``), else None.
    """

    line: int
    question: str
    answer: str | None
    choices: tuple[str, ...] = ()
    id: str | None = None


def read_problems(path: str | os.PathLike[str], suite: str | None = None, *, seed: int = 0) -> list[Problem]:
    """The problems in a file, in its order.

    Args:
        path: ``.jsonl`` (one object per line; empty lines are passed over), a JSON list of objects, or ``.csv``.
        suite: name of the suite whose fields and answers the rows have; None: any known form, row by row.
        seed: of the order in which choices are shown; a question keeps its order whatever else is in the file.

    Raises:
        DataError: no such file, not UTF-8, malformed, a row without a question, an answer that is none of the suite, or
            no problem at all. A row without an answer is no error: its ``answer`` is None.
        OptionError: an unknown suite.
    """
    path = Path(path)
    known = find_suite(suite)
    problems = [_problem(f"{path}, {where}", number, row, known, seed) for number, where, row in _rows(path)]
    if not problems:
        raise DataError(f"{path} holds no problem: it is empty")
    return problems


# ---- rows ------------------------------------------------------------------------------------------------------------


def _rows(path: Path) -> Iterator[Row]:
    try:
        data = path.read_bytes()
    except IsADirectoryError:
        raise DataError(f"{path} is a folder: give a file of problems, .jsonl, .json or .csv") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
    if path.suffix.lower() == ".csv":
        yield from _csv_rows(path, data)
    elif data.lstrip()[:1] == b"[":
        yield from _list_rows(path, data)
    else:
        yield from _json_lines(path, data)


def _json_lines(path: Path, data: bytes) -> Iterator[Row]:
    for number, raw in enumerate(data.split(b"\n"), 1):
        text = _decoded(path, raw, number).strip()
        if not text:
            continue
        value = _parsed(path, text, f"line {number}")
        if not isinstance(value, dict):
            raise DataError(f"{path}, line {number}: expected a JSON object, this is {_what(value)}")
        yield number, f"line {number}", value


def _list_rows(path: Path, data: bytes) -> Iterator[Row]:
    value = _parsed(path, _decoded(path, data, 0), None)
    for number, row in enumerate(value, 1):
        if not isinstance(row, dict):
            raise DataError(f"{path}, entry {number}: expected a JSON object, this is {_what(row)}")
        yield number, f"entry {number}", row


def _csv_rows(path: Path, data: bytes) -> Iterator[Row]:
    reader = csv.DictReader(io.StringIO(_decoded(path, data, 0), newline=""), strict=True)
    end = 1
    try:
        for row in reader:
            start, end = end + 1, reader.line_num
            if None in row:
                raise DataError(f"{path}, line {start}: more cells than the {len(reader.fieldnames or ())} in the head")
            yield start, f"line {start}", {name: value for name, value in row.items() if value}
    except csv.Error as error:
        raise DataError(f"{path}, line {end + 1}: not CSV ({error})") from None


def _decoded(path: Path, raw: bytes, number: int) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = number or raw[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: not valid UTF-8; save the file as UTF-8") from None


def _parsed(path: Path, text: str, where: str | None) -> Any:
    try:
        return json.loads(text, parse_float=Decimal, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        place = f"{where}, column {error.colno}" if where else f"line {error.lineno}, column {error.colno}"
        raise DataError(f"{path}, {place}: not JSON ({error.msg})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}{', ' + where if where else ''}: not JSON ({error})") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _what(value: object) -> str:
    if value is None:
        return "null"
    names = {str: "text", bool: "true or false", int: "a number", Decimal: "a number", list: "a list"}
    return names.get(type(value), "an object")


# ---- problems --------------------------------------------------------------------------------------------------------


def _problem(where: str, line: int, row: Mapping[str, Any], suite: Suite, seed: int) -> Problem:
    forms = [form for form in suite.forms if all(name in row for name in form.question)]
    if not forms:
        wanted = " or ".join(" and ".join(map(repr, form.question)) for form in suite.forms)
        raise DataError(f"{where}: no question, expected the field {wanted}; it has {_names(row)}")
    with_answer = [form for form in forms if form.answer in row and (form.choices is None or form.choices in row)]
    form = (with_answer or forms)[0]
    question = " ".join(_text(where, row, name).strip() for name in form.question).strip()
    if not question:
        raise DataError(f"{where}: the question is empty")
    identity = next((row[name] for name in ("id", "unique_id", "ID", "Record ID") if name in row), None)
    name = str(identity) if isinstance(identity, (str, int)) else None
    if suite.kind == "choice":
        answer, choices = _choices(where, row, form, random.Random(f"{seed}:{line}"))
        return Problem(line, question, answer, choices, name)
    return Problem(line, question, _answer(where, row, form, suite), (), name)


def _answer(where: str, row: Mapping[str, Any], form: Form, suite: Suite) -> str | None:
    if row.get(form.answer) is None:
        return None
    text = _text(where, row, form.answer).strip()
    final = marked(text)
    if form.answer == "solution":
        final = boxed(text)
        if final is None:
            raise DataError(f"{where}: the solution has no \\boxed{{}} answer")
    final = text if final is None else final
    if not final:
        return None
    if suite.kind == "number" and only_number(final) is None and last_number(final) is None:
        raise DataError(f"{where}: the answer {_short(final)} holds no number, as {suite.name} needs it")
    return final


def _choices(where: str, row: Mapping[str, Any], form: Form, rng: random.Random) -> tuple[str | None, tuple[str, ...]]:
    """Letter of the right choice and all choices, shuffled."""
    right: int | None
    if form.choices is not None:
        listed = row.get(form.choices)
        if not isinstance(listed, list) or not 2 <= len(listed) <= len(LETTERS):
            raise DataError(f"{where}: expected a list of 2 to {len(LETTERS)} texts in the field {form.choices!r}")
        texts = [_text(where, {form.choices: item}, form.choices).strip() for item in listed]
        right = None if row.get(form.answer) is None else _index(where, row[form.answer], len(texts))
    else:
        texts = [_text(where, row, name).strip() for name in form.wrong]
        right = None
        if row.get(form.answer) is not None:
            texts.insert(0, _text(where, row, form.answer).strip())
            right = 0
    order = list(range(len(texts)))
    rng.shuffle(order)
    return None if right is None else LETTERS[order.index(right)], tuple(texts[i] for i in order)


def _index(where: str, answer: object, n: int) -> int:
    if isinstance(answer, str) and len(answer.strip()) == 1 and answer.strip().upper() in LETTERS[:n]:
        return LETTERS.index(answer.strip().upper())
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < n:
        return answer
    raise DataError(f"{where}: the answer {_short(str(answer))} is no choice, expected a letter A-{LETTERS[n - 1]}")


def _text(where: str, row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if isinstance(value, str):
        return value
    if isinstance(value, Decimal):
        return format(value, "f") if abs(value.adjusted()) < 400 else str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"{where}: the field {name!r} is {'missing' if name not in row else _what(value)}, expected text")


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")


def _names(row: Mapping[str, Any]) -> str:
    return ", ".join(map(_short, list(row)[:8])) or "no fields"
