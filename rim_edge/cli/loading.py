"""Loading a model for a command: a progress bar when it takes long, and Ctrl-C that leaves nothing behind."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import rim_edge
from rim_edge.cli import console
from rim_edge.cli.work import Work

if TYPE_CHECKING:
    from rim_edge.model import Model

_BAR_AFTER_S = 0.5


def open_model(path: str | None, arguments: dict[str, Any]) -> Model:
    """Load ``path`` (None: the bundled model) with the keyword ``arguments`` of ``rim_edge.load``.

    Raises CancelledError after Ctrl-C, and whatever ``rim_edge.load`` raises.
    """
    stop = threading.Event()

    def load(put: Any) -> Model:
        def progress(fraction: float) -> bool:
            put(fraction)
            return not stop.is_set()

        return rim_edge.load(path, progress=progress, **arguments)

    work: Work[float, Model] = Work(load, stop.set)
    _show(work)
    if work.interrupted:  # too late to abort the load itself
        work.result.close()
        raise rim_edge.CancelledError("interrupted")
    return work.result


def _show(work: Work[float, Model]) -> None:
    """Wait for the load; after half a second draw a bar on a terminal, and remove it at the end."""
    start = time.monotonic()
    if not console.coloured(sys.stderr):
        for _ in work.pieces():
            pass
        return
    bar = None
    try:
        for fraction in work.pieces():
            if bar is None and time.monotonic() - start >= _BAR_AFTER_S and fraction < 1.0:
                bar = _bar()
            if bar is not None:
                bar.update(bar.task_ids[0], completed=fraction)
    finally:
        if bar is not None:
            bar.stop()


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    bar = Progress(
        TextColumn("loading"), BarColumn(), TaskProgressColumn(), console=Console(stderr=True), transient=True
    )
    bar.add_task("loading", total=1.0)
    bar.start()
    return bar
