"""Where the questions of ``ask`` come from: arguments, or standard input as a whole, by line, or as JSON lines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import click

from rim_edge.errors import RimError


class InputError(RimError):
    """What was given as a question cannot be used."""


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        text: the question.
        line: its line on standard input, from 1; 0 when it came otherwise.
        id: what a JSON line called ``id``, else None.
    """

    text: str
    line: int = 0
    id: str | int | None = None


def is_model(argument: str) -> bool:
    """Whether a lone argument names a model rather than asking a question.

    It does when it ends in ``.gguf``, or is an existing file, or an existing folder with an ONNX model or Hugging Face
    files in it. Words that happen to be the name of another folder stay a question.
    """
    if argument.lower().endswith(".gguf") and "\n" not in argument:
        return True
    try:
        if os.path.isfile(argument):
            return True
        return os.path.isdir(argument) and any(
            os.path.exists(os.path.join(argument, name)) for name in ("model.onnx", "genai_config.json", "config.json")
        )
    except (OSError, ValueError):  # a question too long, or with a NUL, to be a path
        return False


def split_arguments(arguments: tuple[str, ...], model: str | None) -> tuple[str | None, str | None]:
    """``(model, question)`` out of ``[MODEL] [QUESTION]``; a question of None stands for standard input.

    Raises click.UsageError where the arguments cannot be told apart.
    """
    words = list(arguments)
    if model is None and words and (len(words) > 1 or is_model(words[0])):
        model = words.pop(0)
    if len(words) > 1:
        raise click.UsageError("too many arguments: put the question in quotes")
    question = words[0] if words else None
    return model, None if question in (None, "-") else question


def read_stream(stream: BinaryIO, lines: bool) -> Iterator[Question]:
    """Questions out of a byte stream: the whole of it, or one per line as soon as each is there.

    A line that is a JSON object gives its field ``question``. Empty lines are passed over.

    Raises InputError for bytes that are not UTF-8, a JSON object without ``question``, and a stream without a question.
    """
    found = False
    if not lines:
        text = decode_line(stream.read(), 0).strip()
        if text:
            found = True
            yield Question(text)
    else:
        for number, raw in enumerate(stream, 1):
            text = decode_line(raw, number).strip()
            if text:
                found = True
                yield _from_line(text, number)
    if not found:
        raise InputError("standard input holds no question")


def check_argument(text: str) -> Question:
    """The question given as an argument. Raises InputError when it is not UTF-8, click.UsageError when it is empty."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError("the question is not valid UTF-8") from None
    if not text.strip():
        raise click.UsageError("the question is empty")
    return Question(text)


def standard_input() -> BinaryIO:
    """Standard input as bytes. Raises click.UsageError where a terminal would have to be asked."""
    if sys.stdin is None or sys.stdin.closed:
        raise click.UsageError("no question: give it in quotes, or on standard input")
    if sys.stdin.isatty():
        raise click.UsageError("no question: give it in quotes, or on standard input (rim-edge chat talks)")
    return sys.stdin.buffer


def decode_line(raw: bytes, number: int) -> str:
    """Line ``number`` of standard input (0: all of it) as text, without a byte order mark.

    Raises InputError where it is not UTF-8.
    """
    try:
        return raw.decode("utf-8-sig" if number <= 1 else "utf-8")
    except UnicodeDecodeError as error:
        where = f"line {number}, byte {error.start + 1}" if number else f"byte {error.start + 1}"
        raise InputError(f"standard input is not valid UTF-8 ({where}): save it as UTF-8") from None


def _from_line(text: str, number: int) -> Question:
    if not text.startswith("{"):
        return Question(text, number)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return Question(text, number)  # a question that happens to begin with a brace
    question = value.get("question") if isinstance(value, dict) else None
    if not isinstance(question, str) or not question.strip():
        raise InputError(f"line {number} of standard input is a JSON object without a text in its field 'question'")
    identity = value.get("id")
    return Question(question, number, identity if isinstance(identity, (str, int)) else None)
