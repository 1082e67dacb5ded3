"""``rim-edge eval``: accuracy and time of every way to answer, on questions with known answers."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rim_edge.cli import console, options
from rim_edge.cli.loading import open_model
from rim_edge.cli.render import json_line
from rim_edge.cli.work import Work
from rim_edge.errors import CancelledError
from rim_edge.model import BUNDLED

if TYPE_CHECKING:
    from rim_edge.evaluation.data import Problem
    from rim_edge.evaluation.plan import Plan, Settings
    from rim_edge.evaluation.record import Record
    from rim_edge.evaluation.report import Table
    from rim_edge.evaluation.run import Progress
    from rim_edge.model import Model

_SUITES = ("gsm8k", "gsm-hard", "svamp", "math-500", "gpqa")
#: settings that may change while an evaluation goes on: they say how much is asked, not how
_GROWING = ("limit", "latency")


@click.command(
    epilog="""\b
Examples:
  rim-edge eval model.gguf gsm8k_test.jsonl --suite gsm8k --limit 200
  rim-edge eval model.gguf problems.jsonl --cot --json > summary.json
  rim-edge eval model.gguf gpqa_diamond.csv --suite gpqa --seed 7 -o gpqa.eval.jsonl"""
)
@click.argument("arguments", nargs=-1, required=True, metavar="[MODEL] DATA")
@click.option(
    "--suite",
    type=click.Choice(_SUITES, case_sensitive=False),
    help="Fields and scoring of a known test. [default: question/answer, input/target, as numbers or text]",
)
@click.option("-b", "--blocks", type=click.IntRange(min=0), metavar="K", help="Deepest readout. [default: as trained]")
@click.option("--cot", is_flag=True, help="Ask for a chain of thought too.")
@click.option("--prompt", metavar="TEXT", help="Text around {question} (and {choices}), direct and with blocks.")
@click.option("--cot-prompt", metavar="TEXT", help="The same for the chain of thought.")
@click.option("--pattern", metavar="REGEX", help="Its group 1 is the final answer. [default: the model's, if any]")
@click.option("-n", "--max-tokens", type=click.IntRange(min=1), help="Longest answer. [default: 64; gpqa 16, math 128]")
@click.option(
    "--cot-tokens", type=click.IntRange(min=1), default=512, show_default=True, help="Longest chain of thought."
)
@click.option("--stop", multiple=True, metavar="TEXT", help="End an answer before this text; several times if needed.")
@click.option("--system", "-sys", metavar="TEXT", help="System message.")
@click.option("--lanes", type=click.IntRange(min=1), help="Questions side by side. [default: 4]")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Ask a sample of N questions. [default: all]")
@click.option(
    "-s",
    "--seed",
    type=click.IntRange(0, 2**32 - 2),
    default=0,
    show_default=True,
    help="Of the sample, and of the order of choices.",
)
@click.option(
    "--latency",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    metavar="N",
    help="Questions asked again one at a time, in every way, for their times.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where all answers go, and where an interrupted run goes on. [default: MODEL.DATA.eval.jsonl]",
)
@click.option("--force", is_flag=True, help="Begin anew where FILE is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@options.model_options
def eval(
    arguments: tuple[str, ...], output: Path | None, force: bool, as_json: bool, suite: str | None, **rest: Any
) -> int:
    """Answer the questions in DATA in every way that MODEL can: directly, after each memory block, with adaptive depth,
    by each selection, and (--cot) as a chain of thought, then compare them on the same questions.

    DATA is .jsonl, .json or .csv with known answers. MODEL is a GGUF file or an ONNX folder; without it the bundled
    rim-tiny answers. Answers are greedy. Each is written to FILE as it comes; after Ctrl-C the same command goes on.
    """
    from rim_edge.evaluation.data import read_problems
    from rim_edge.evaluation.identity import identity
    from rim_edge.evaluation.plan import Settings, make_plan, sample
    from rim_edge.evaluation.record import Record

    model_path, data = _arguments(arguments)
    settings = Settings(suite=suite, **{name: rest[name] for name in Settings.__annotations__ if name in rest})
    output = output or Path(f"{Path(model_path).stem}.{Path(data).stem}.eval.jsonl")
    _check_output(output, model_path, data)
    problems, missing = sample(read_problems(data, suite, seed=settings.seed), settings)
    loading = options.loading(rest)
    with open_model(model_path, loading) as model:
        plan = make_plan(model, settings)
        head = _head(settings, plan, loading, identity(model_path), identity(data))
        with Record(output, head, force=force) as record:
            _remark_start(record, len(problems), missing)
            if not _run(model, problems, plan, settings, record):
                return 130
            # where there are no blocks the plan says why
            own = [notice for notice in model.notices if plan.depth or "memory blocks" not in notice]
            return _print(record, problems, plan, [*own, *plan.notices], missing, as_json)


def _arguments(arguments: tuple[str, ...]) -> tuple[str, str]:
    if len(arguments) > 2:
        raise click.UsageError(f"too many arguments: expected [MODEL] DATA, got {len(arguments)}")
    if len(arguments) == 2:
        return arguments[0], arguments[1]
    if arguments[0].lower().endswith(".gguf"):
        raise click.UsageError("no DATA: give a file of questions with answers, .jsonl, .json or .csv")
    return str(BUNDLED), arguments[0]


def _check_output(output: Path, model: str, data: str) -> None:
    for path in (model, data):
        if output.exists() and os.path.exists(path) and os.path.samefile(output, path):
            raise click.UsageError(f"--output {output} would overwrite what is read: choose another name")


def _head(
    settings: Settings, plan: Plan, loading: dict[str, Any], model: dict[str, Any], data: dict[str, Any]
) -> dict[str, Any]:
    import rim_edge

    chosen = {name: value for name, value in asdict(settings).items() if name not in _GROWING}
    chosen |= {name: getattr(plan, name) for name in ("prompt", "pattern", "max_tokens", "lanes")}
    chosen |= {"blocks": plan.depth, "cot_prompt": plan.cot_prompt if settings.cot else None}
    chosen["stop"] = list(chosen["stop"])
    return {
        "program": f"rim-edge {rim_edge.__version__}",
        "model": model,
        "data": data,
        "passes": list(plan.passes),
        "depth": plan.depth,
        "must_match": {
            "model": {"sha256": model["sha256"]},
            "data": {"sha256": data["sha256"]},
            "settings": chosen,
            "loading": loading,
        },
    }


def _remark_start(record: Record, n_problems: int, missing: Sequence[int]) -> None:
    if missing:
        some = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
        console.remark(f"Note: {console.count(len(missing), 'row')} without an answer left out (line {some})")
    if record.mended:
        console.remark(f"Note: half a line at the end of {record.path} was removed")
    if record.lines:
        console.remark(f"Note: going on with {record.path}")


# ---- working ---------------------------------------------------------------------------------------------------------


def _run(model: Model, problems: Sequence[Problem], plan: Plan, settings: Settings, record: Record) -> bool:
    """Do the work; False where Ctrl-C ended it."""
    from rim_edge.evaluation.run import Evaluator

    stop = threading.Event()
    evaluator = Evaluator(model, problems, plan, settings, record, stop.is_set)

    def cancel() -> None:
        stop.set()
        model.cancel()

    def work(put: Any) -> None:
        for progress in evaluator.run():
            put(progress)

    running: Work[Progress, None] = Work(work, cancel)
    with _bar() as show:
        show(evaluator.progress())
        try:
            for progress in running.pieces():
                show(progress)
        except CancelledError:
            if not running.interrupted:
                raise
    if not running.interrupted:
        return True
    done = evaluator.progress()
    console.remark(
        f"Interrupted: {done.done} of {done.total} answers are in {record.path}. The same command goes on from there."
    )
    return False


@contextmanager
def _bar() -> Iterator[Any]:
    """A function that shows the progress, on a terminal."""
    if not console.coloured(sys.stderr):
        yield lambda progress: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("answers")

        def show(progress: Any) -> None:
            bar.update(task, description=_words(progress), completed=progress.done, total=progress.total)

        yield show


def _words(progress: Progress) -> str:
    if progress.timing:
        return "times"
    if not any(progress.asked.values()):
        return "asking"
    names = {"rim": "blocks", "cot": "thoughts"}
    return " · ".join(
        f"{names.get(name, name)} {100 * progress.right[name] / n:.1f} %" for name, n in progress.asked.items() if n
    )


# ---- results ---------------------------------------------------------------------------------------------------------


def _print(
    record: Record,
    problems: Sequence[Problem],
    plan: Plan,
    notices: Sequence[str],
    missing: Sequence[int],
    as_json: bool,
) -> int:
    from rim_edge.evaluation import report
    from rim_edge.evaluation.summary import summarize

    summary = summarize(record.head, record.lines, {problem.line for problem in problems})
    summary |= {"answers": str(record.path), "rows_without_answer": list(missing), "notices": list(notices)}
    if as_json:
        console.out(json_line(summary))
    else:
        _draw(report.accuracy_table(summary))
        times = report.time_table(summary)
        if times is not None:
            _draw(times)
        for line in [*report.remarks(summary), f"All answers: {record.path}"]:
            console.remark(line, err=False)
    for notice in dict.fromkeys(notices):
        console.remark(f"Note: {notice}")
    return 0


def _draw(table: Table) -> None:
    """Print a table, with lines and styles on a terminal, plain elsewhere."""
    if not console.coloured(sys.stdout):
        console.out(table.title)
        right = "l" + "r" * (len(table.header) - 1)
        for line in console.table(table.header, table.rows, right=right):
            console.out(line)
        console.out()
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable

    drawn = RichTable(
        title=table.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    for i, name in enumerate(table.header):
        drawn.add_column(name, justify="right" if i else "left", overflow="fold")
    for row in table.rows:
        drawn.add_row(*map(console.one_line, row))
    Console(markup=False, highlight=False).print(drawn)
