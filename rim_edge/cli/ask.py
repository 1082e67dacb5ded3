"""``rim-edge ask``: one answer, or one per line of standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from rim_edge.cli import console, options, questions, terminal
from rim_edge.cli.loading import open_model
from rim_edge.cli.markdown import MarkdownStream
from rim_edge.cli.questions import Question
from rim_edge.cli.render import json_line, readout_table, summary
from rim_edge.cli.work import Work
from rim_edge.errors import ContextFullError, TemplateError

if TYPE_CHECKING:
    from rim_edge.model import Model
    from rim_edge.results import Answer


@click.command(
    epilog="""\b
Examples:
  rim-edge ask "Tom has 5 apples. He buys 3 more. How many apples does Tom have now?"
  rim-edge ask model.gguf "Why is the sky blue?" --temp 0.7 --max-tokens 200
  rim-edge ask model.gguf --json < questions.txt > answers.jsonl"""
)
@click.argument("arguments", nargs=-1, metavar="[MODEL] [QUESTION]")
@click.option("-m", "--model", metavar="MODEL", help="The model, when QUESTION alone is given as an argument.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per question.")
@click.option(
    "--lines/--no-lines", default=None, help="Each line of standard input is a question. [default: with --json]"
)
@click.option("-v", "--readouts", is_flag=True, help="Decode the answer of every readout, and show them as a table.")
@click.option("-q", "--quiet", is_flag=True, help="Print the answer alone, without depth and time.")
@options.rim_options
@options.sampling_options
@options.model_options
def ask(
    arguments: tuple[str, ...],
    model: str | None,
    as_json: bool,
    lines: bool | None,
    readouts: bool,
    quiet: bool,
    system: str | None,
    **rest: Any,
) -> int:
    """Answer a question and leave. MODEL is a GGUF file; without it the bundled rim-tiny answers.

    A lone argument is the model if it ends in .gguf or is an existing file, else the question. Without QUESTION, or
    with -, standard input is read: all of it is one question, or, with --json or --lines, each line is one (as text, or
    as a JSON object with a field "question"). Nothing is ever prompted for. With --json a question that cannot be
    answered gives an object with "error", and the exit code is 1 at the end.
    """
    path, text = questions.split_arguments(arguments, model)
    asked: Iterable[Question]
    if text is not None:
        asked = [questions.check_argument(text)]
    else:
        by_line = as_json if lines is None else lines
        asked = questions.read_stream(questions.standard_input(), by_line)
        if not by_line:
            asked = list(asked)  # what is wrong with it shows before the model is loaded
    keywords = options.generation(rest) | {"system": system, "readouts": readouts}
    with open_model(path, options.loading(rest)) as loaded:
        if as_json:
            return _as_json(loaded, asked, keywords)
        for question in asked:
            _as_text(loaded, question, keywords, quiet)
        _notices(loaded.notices)
    return 0


def _as_text(model: Model, question: Question, keywords: dict[str, Any], quiet: bool) -> None:
    """Print the answer as it comes, then what it took."""
    view = MarkdownStream(lambda text: console.out(text, newline=False), terminal.columns, console.coloured(sys.stdout))
    work: Work[str, Answer] = Work(lambda put: model.ask(question.text, on_text=put, **keywords), model.cancel)
    try:
        for piece in work.pieces():
            view.feed(piece)
    finally:
        view.close()
    if work.interrupted:
        raise KeyboardInterrupt
    answer = work.result
    if not console.clean(answer.text):
        console.out()
    if not quiet:
        console.out(summary(answer), dim=True)
    if keywords["readouts"]:
        for line in readout_table(answer, width=terminal.columns()):
            console.out(line)
    _notices(answer.notices)


def _notices(notices: Iterable[str]) -> None:
    for notice in notices:
        console.remark(f"Note: {notice}")


def _as_json(model: Model, asked: Iterable[Question], keywords: dict[str, Any]) -> int:
    """Print one object per question as soon as it is answered. Returns the exit code."""
    code = 0
    for question in asked:
        head: dict[str, Any] = {"question": question.text}
        if question.id is not None:
            head["id"] = question.id
        try:
            answer = _answer(model, question, keywords)
        except (ContextFullError, TemplateError) as error:  # this question alone
            console.out(json_line(head | {"error": console.one_line(str(error))}))
            where = f"line {question.line}: " if question.line else ""
            console.error(f"{where}{error}")
            code = 1
            continue
        console.out(json_line(head | answer.to_dict()))
    _notices(model.notices)
    return code


def _answer(model: Model, question: Question, keywords: dict[str, Any]) -> Answer:
    work: Work[str, Answer] = Work(lambda _: model.ask(question.text, **keywords), model.cancel)
    return work.run()
