"""Work that Ctrl-C can stop: it runs in a thread of its own while the main thread listens.

Python handles a signal only between two bytecodes of the main thread, and a forward pass is one long native call.
So the main thread waits on a queue; the first Ctrl-C calls ``cancel``, the work ends cleanly by itself, and what it
gave so far is kept.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Generic, TypeVar

from rim_edge.cli import terminal

P = TypeVar("P")
T = TypeVar("T")
_AGAIN_S = 0.1  # after Ctrl-C, cancel again and again until the work has ended
_PATIENCE = 3  # this many Ctrl-C end the process even if the work does not answer


class Work(Generic[P, T]):
    """``function(put)`` in a thread; what it puts comes out of ``pieces()``, what it returns stands in ``result``.

    Attributes:
        interrupted: whether Ctrl-C was pressed while the pieces were read.
    """

    def __init__(self, function: Callable[[Callable[[P], None]], T], cancel: Callable[[], None]) -> None:
        self.interrupted = False
        self._cancel = cancel
        self._function = function
        self._queue: queue.SimpleQueue[list[P]] = queue.SimpleQueue()  # [piece], or [] at the end
        self._result: list[T] = []
        self._error: BaseException | None = None
        self._presses = 0
        self._thread = threading.Thread(target=self._run, name="rim-edge-work", daemon=True)

    def _run(self) -> None:
        try:
            self._result.append(self._function(lambda piece: self._queue.put([piece])))
        except BaseException as error:  # carried over to the main thread
            self._error = error
        finally:
            self._queue.put([])

    def pieces(self) -> Iterator[P]:
        """Yield the pieces as they come; afterwards ``result`` is there. Raises what the function raised.

        The work is cancelled, and waited for, when the iteration ends early.
        """
        previous = _listen(self._press)
        try:
            self._thread.start()
            while piece := self._next():
                yield piece[0]
        finally:
            if self._thread.ident is not None and self._thread.is_alive() and not self._result and self._error is None:
                self._cancel()
            if self._thread.ident is not None:
                self._thread.join()
            _restore(previous)
        if self._error is not None:
            raise self._error

    def run(self) -> T:
        """Wait for the result, the pieces dropped. Raises KeyboardInterrupt where Ctrl-C was pressed meanwhile."""
        for _ in self.pieces():
            pass
        if self.interrupted:
            raise KeyboardInterrupt
        return self.result

    def _next(self) -> list[P]:
        while True:
            try:
                return self._queue.get(timeout=_AGAIN_S)
            except queue.Empty:
                if self.interrupted:  # the first time may have been too early to be heard
                    self._cancel()

    @property
    def result(self) -> T:
        """What the function returned."""
        return self._result[0]

    def _press(self, _signal: int, _frame: FrameType | None) -> None:
        self.interrupted = True
        self._presses += 1
        if self._presses >= _PATIENCE:
            terminal.restore()
            os._exit(130)
        self._cancel()


_Handler = Callable[[int, FrameType | None], object] | int | None


def _listen(handler: Callable[[int, FrameType | None], None]) -> _Handler:
    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGINT, handler)


def _restore(previous: _Handler) -> None:
    if previous is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, previous)


def interrupt_on_sigterm() -> Any:
    """Let SIGTERM count as Ctrl-C from now on; returns the handler that was set before."""
    return signal.signal(signal.SIGTERM, _raise_interrupt)


def _raise_interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
