"""Loading a model for a command: a progress bar when it takes long, and Ctrl-C that leaves nothing behind."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import rim_edge
from rim_edge import memory
from rim_edge.cli import console
from rim_edge.cli.work import Work
from rim_edge.context import DEFAULT_CONTEXT
from rim_edge.errors import CancelledError, OptionError
from rim_edge.model import BUNDLED

if TYPE_CHECKING:
    from rim_edge.model import Model

_BAR_AFTER_S = 0.5


def open_model(path: str | None, arguments: dict[str, Any]) -> Model:
    """Load ``path`` (None: the bundled model) with the keyword ``arguments`` of ``rim_edge.load``.

    Raises CancelledError after Ctrl-C, and whatever ``rim_edge.load`` raises.
    """
    if (arguments.get("n_ctx") or 0) > DEFAULT_CONTEXT:
        _check_room(str(path or BUNDLED), arguments["n_ctx"], arguments["cache_type"])
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
        raise CancelledError("interrupted")
    return work.result


def _check_room(path: str, n_ctx: int, cache_type: str) -> None:
    """Refuse a context whose cache alone is more than this machine's memory: the system would end the process later."""
    if not path.lower().endswith(".gguf") or not os.path.isfile(path):
        return
    from rim_edge import _native

    file = _native.GgufFile(path)
    needed = memory.estimate(file.metadata, file.tensors, cache_type=cache_type, contexts=[n_ctx]).cache[n_ctx]
    available = memory.physical_bytes()
    if available is not None and needed > available:
        raise OptionError(
            f"n_ctx is {n_ctx}: its cache takes {console.size(needed)}, this machine has {console.size(available)} of "
            "memory: use less"
        )


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
