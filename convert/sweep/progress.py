"""What a sweep shows while it works: two bars on a terminal, a line per finished part elsewhere. On standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rim_edge.cli import console

if TYPE_CHECKING:
    from rich.progress import Progress


class Watch:
    """Tells nobody. ``stage`` opens a part of the work, ``done`` says how far it is, ``say`` tells a result."""

    def stage(self, what: str, total: int) -> None: ...
    def done(self, n: int) -> None: ...
    def say(self, text: str) -> None: ...


class Lines(Watch):
    """A line on standard error for each result."""

    def say(self, text: str) -> None:
        console.remark(text)


class Bars(Watch):
    """Bars of rich: one for the part at work; results scroll by above it."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task = bars.add_task("", total=None)

    def stage(self, what: str, total: int) -> None:
        self._bars.reset(self._task, description=what, total=total, completed=0)

    def done(self, n: int) -> None:
        self._bars.update(self._task, completed=n)

    def say(self, text: str) -> None:
        self._bars.console.print(text, style="dim", markup=False, highlight=False)


@contextmanager
def watching(quiet: bool = False) -> Iterator[Watch]:
    """What fits standard error."""
    if quiet:
        yield Watch()
        return
    if not console.is_terminal(sys.stderr) or console.is_dumb():
        yield Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield Bars(bars)
