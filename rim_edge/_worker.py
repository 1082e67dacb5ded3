"""Work in a thread of its own, so that text flows piece by piece and Ctrl-C or ``cancel()`` is heard at once.

The main thread of Python handles signals only while it runs Python code; a native call there would delay Ctrl-C to its
end.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Generic, Protocol, TypeVar

from rim_edge.errors import CancelledError, RimError

T = TypeVar("T")
Event = tuple[str, int, int]  # a piece of text, or ("", tokens done, tokens in all)
Emit = Callable[[Event], None]


class Cancellable(Protocol):
    """What a token stops: see :class:`rim_edge.backends.base.BackendSession`."""

    def cancel(self) -> None: ...
    def clear_cancel(self) -> None: ...


class CancelToken:
    """The switch of one piece of work. :meth:`cancel` works before, during and after it, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._session: Cancellable | None = None
        self.cancelled = False

    def cancel(self) -> None:
        """Stop the work at the next chance; without effect once it has ended."""
        with self._lock:
            self.cancelled = True
            if self._session is not None:
                self._session.cancel()

    @contextlib.contextmanager
    def attached(self, session: Cancellable) -> Iterator[None]:
        """While inside, :meth:`cancel` reaches ``session``; afterwards the session is ready for other work."""
        with self._lock:
            if self.cancelled:
                raise CancelledError("cancelled")
            session.clear_cancel()
            self._session = session
        try:
            yield
        finally:
            with self._lock:
                self._session = None
                session.clear_cancel()


_live: weakref.WeakSet[CancelToken] = weakref.WeakSet()


def _cancel_all() -> None:
    for token in list(_live):
        token.cancel()


# Before concurrent.futures joins its threads at exit, or an abandoned stream would hold the process until its last
# token.
getattr(threading, "_register_atexit", atexit.register)(_cancel_all)


class Task(Generic[T]):
    """One piece of work that runs in a worker thread and emits events."""

    def __init__(self, pool: ThreadPoolExecutor, work: Callable[[Emit], T], token: CancelToken) -> None:
        self.token = token
        self._events: SimpleQueue[Event | None] = SimpleQueue()
        _live.add(token)

        def run() -> T:
            try:
                return work(self._events.put)
            finally:
                self._events.put(None)

        self._future: Future[T] = pool.submit(run)

    def next_event(self) -> Event | None:
        """The next event, None after the last one. An interrupt stops the work and is raised again."""
        with self._stop_on_interrupt():
            return self._events.get()

    def result(self) -> T:
        """The work's result, or its exception. An interrupt stops the work and is raised again."""
        with self._stop_on_interrupt():
            return self._future.result()

    def done(self) -> bool:
        return self._future.done()

    def drain(self) -> Iterator[Event]:
        """Events that nobody has taken yet; does not wait."""
        with contextlib.suppress(Empty):
            while (event := self._events.get_nowait()) is not None:
                yield event

    def stop(self) -> None:
        """Cancel, and wait until the worker thread is free again."""
        self.token.cancel()
        self._future.exception()

    @contextlib.contextmanager
    def _stop_on_interrupt(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            if not self._future.done():
                self.stop()
            raise


def deliver(
    task: Task[T], on_text: Callable[[str], None] | None, on_prefill: Callable[[int, int], None] | None
) -> None:
    """Hand the events of ``task`` to the user's callbacks, in this thread; what they raise stops the work."""
    while (event := task.next_event()) is not None:
        text, done, total = event
        try:
            if text and on_text is not None:
                on_text(text)
            elif not text and on_prefill is not None:
                on_prefill(done, total)
        except BaseException:
            task.stop()
            raise


async def in_thread(work: Callable[[], T], token: CancelToken) -> T:
    """Await ``work`` in a thread. If the awaiting task is cancelled: stop the work, wait for its end, pass it on."""
    import asyncio  # 20 ms that only callers of async methods need

    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        token.cancel()
        with contextlib.suppress(RimError):
            await asyncio.shield(running)
        raise
