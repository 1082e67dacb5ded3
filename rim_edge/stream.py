"""Stream: an answer on its way, piece by piece."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rim_edge._worker import Task, deliver
from rim_edge.options import Request
from rim_edge.results import Answer

if TYPE_CHECKING:
    from typing_extensions import Self


class Stream(Iterator[str]):
    """An answer on its way, made by :meth:`rim_edge.Chat.stream`: iterate for its pieces.

    A context manager, whose end is :meth:`close`. Ctrl-C while waiting for a piece closes the stream, too.

    Attributes:
        answer: the whole answer once the stream has ended, else None.
    """

    def __init__(self, task: Task[Answer], request: Request, cut: Callable[[str], None]) -> None:
        self._task, self._request, self._cut = task, request, cut
        self._shown = ""
        self._ended = False
        self.answer: Answer | None = None

    def __next__(self) -> str:
        try:
            while not self._ended and (event := self._task.next_event()) is not None:
                text, done, total = event
                if text:
                    self._shown += text
                    if self._request.on_text is not None:
                        self._request.on_text(text)
                    return text
                if self._request.on_prefill is not None:
                    self._request.on_prefill(done, total)
            if not self._ended:
                self.answer = self._task.result()
                self._ended = True
        except BaseException:
            self.close()
            raise
        raise StopIteration

    def finish(self) -> Answer:
        """Wait for the end and return the answer; callbacks get the pieces that come until then."""
        try:
            deliver(self._task, self._request.on_text, self._request.on_prefill)
            self.answer = self._task.result()
        finally:
            self._ended = True
        return self.answer

    def close(self) -> None:
        """Stop the work if it has not ended.

        The turn is then closed with the pieces handed out so far; without any, it is taken back.
        """
        if self._ended:
            return
        self._ended = True
        self._task.stop()
        missed = any(text for text, _, _ in self._task.drain())
        with contextlib.suppress(Exception):  # an error of the work was for the one who iterates
            self.answer = self._task.result()
            if missed or not self._shown:
                self._cut(self._shown)
                self.answer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_ended", True):
            with contextlib.suppress(Exception):
                self.close()
