"""One call at a time, and stopping it from outside: the gate of an ONNX session."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from rim_edge.errors import BusyError, CancelledError, ClosedError


class Gate:
    """Lets one thread in. A second one is refused instead of waiting, except :meth:`close`, which waits for the first.

    Attributes:
        run_options: ``onnxruntime.RunOptions`` of every run; stopping reaches into a run at work.
    """

    def __init__(self) -> None:
        import onnxruntime

        self.run_options = onnxruntime.RunOptions()
        self.run_options.log_severity_level = 4  # what fails is raised, not printed
        self._changed = threading.Condition()
        self._owner: int | None = None
        self._cancelled = self._closing = self._closed = False

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Inside while it lasts. Raises BusyError, ClosedError."""
        with self._changed:
            if self._closed:
                raise ClosedError("the session is closed: make a new one")
            if self._owner is not None:
                raise BusyError("the session is at work in another call: wait for it or cancel() it")
            self._owner = threading.get_ident()
        try:
            yield
        finally:
            with self._changed:
                self._owner = None
                self._changed.notify_all()

    def close(self) -> None:
        """Stop the work at hand, wait for its end, and let nobody in any more."""
        with self._changed:
            if self._owner == threading.get_ident():
                raise BusyError("the session is at work in this very call: close it after the callback has returned")
            self._closing = self.run_options.terminate = True
            self._changed.wait_for(lambda: self._owner is None)
            self._closed = True

    def cancel(self) -> None:
        """Stop the work, from any thread; holds until :meth:`clear_cancel`."""
        self._cancelled = self.run_options.terminate = True

    def clear_cancel(self) -> None:
        self._cancelled = False
        self.run_options.terminate = self._closing

    @property
    def stopping(self) -> bool:
        """Whether the work should end."""
        return self._cancelled or self._closing

    def check(self) -> None:
        """Raise CancelledError where the work should end."""
        if self.stopping:
            raise CancelledError("cancelled")
