"""``rim-edge bench``: how long a model takes to answer, in every way, and what the machine could do."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rim_edge.backends.onnx_folder import is_onnx
from rim_edge.cli import console, options
from rim_edge.cli.render import json_line
from rim_edge.cli.work import interrupt_on_sigterm
from rim_edge.errors import ModelFileError, OptionError, UnsupportedError

if TYPE_CHECKING:
    from rim_edge.benchmark.run import Progress


@click.command(
    epilog="""\b
Examples:
  rim-edge bench
  rim-edge bench model.gguf --compare llama-cpp-python --rounds 9
  rim-edge bench model.gguf --output bench.json --picture bench.png"""
)
@click.argument("model", required=False)
@click.option(
    "-r", "--rounds", type=click.IntRange(1, 1000), default=5, show_default=True, help="Counted samples of everything."
)
@click.option(
    "--prompt-tokens",
    type=click.IntRange(1, 100_000),
    default=64,
    show_default=True,
    help="Tokens of the question, template included, at most.",
)
@click.option(
    "--answer-tokens", type=click.IntRange(1, 10_000), default=16, show_default=True, help="Tokens of every answer."
)
@click.option(
    "--cot-tokens",
    type=click.IntRange(0, 100_000),
    default=128,
    show_default=True,
    help="Tokens of a chain of thought; 0 leaves it out.",
)
@click.option("--compare", metavar="PEER", help="Run the same tokens there, in turn: llama-cpp-python.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with every sample.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write that JSON to FILE too.")
@click.option("--picture", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw the figures.")
@click.option("--force", is_flag=True, help="Overwrite the files.")
@options.model_options
def bench(
    model: str | None,
    rounds: int,
    prompt_tokens: int,
    answer_tokens: int,
    cot_tokens: int,
    compare: str | None,
    as_json: bool,
    output: Path | None,
    picture: Path | None,
    force: bool,
    **rest: Any,
) -> int:
    """Measure MODEL, a GGUF file; without it the bundled rim-tiny.

    Time to the first token and whole answers: direct, with memory blocks, with adaptive depth, after a chain of
    thought. Prefill and decoding by width and threads, readouts, reuse of a chat's text, loading, memory. Each beside
    what this machine could do at best, measured in the same run. docs/bench.md says what every figure means.
    """
    from rim_edge.benchmark import report as report_of
    from rim_edge.benchmark.picture import check_picture, draw
    from rim_edge.benchmark.plan import Settings
    from rim_edge.benchmark.run import run
    from rim_edge.convert.whole_file import check_output, whole_file

    path = _path(model)
    if picture is not None:
        check_picture(picture)
    for file in (output, picture):
        if file is not None:
            check_output(file, force)
    if output is not None and picture is not None and output.absolute() == picture.absolute():
        raise OptionError(f"--output and --picture are the same file, {output}")
    loading = options.loading(rest)
    settings = Settings(
        path=path,
        rounds=rounds,
        prompt_tokens=prompt_tokens,
        answer_tokens=answer_tokens,
        cot_tokens=cot_tokens,
        compare=compare,
        **loading,
    )
    interrupt_on_sigterm()
    with _progress() as progress:
        found = run(settings, progress)
    if output is not None:
        with whole_file(output, force) as place:
            place.write_text(json_line(found) + "\n", encoding="utf-8")
    if picture is not None:
        with whole_file(picture, force) as place:
            draw(found, place, picture.suffix[1:].lower())
    if as_json:
        console.out(json_line(found))
    else:
        for line, heading in report_of.lines(found):
            console.out(console.clean(line), bold=heading)
    return 0


def _path(model: str | None) -> str:
    from rim_edge.model import BUNDLED

    path = str(BUNDLED) if model is None else model
    if not os.path.exists(path):
        raise ModelFileError(f"{path}: no such file; give the path of a .gguf model")
    if is_onnx(Path(path)):
        raise UnsupportedError(f"{path}: bench measures .gguf files; for an ONNX folder see bench/onnx_vs_gguf.py")
    if os.path.isdir(path):
        raise ModelFileError(f"{path}: is a directory; give the path of a .gguf model")
    return path


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on a terminal's standard error; nothing elsewhere."""
    if not console.is_terminal(sys.stderr) or console.is_dumb():
        yield lambda done, total, what: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (BarColumn(24), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1)
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)
