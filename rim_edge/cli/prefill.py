"""Evaluating a message while it is still being typed, so that its answer begins sooner."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from rim_edge.errors import RimError

if TYPE_CHECKING:
    from rim_edge.chat import Chat

_QUIET_S = 0.15  # a pause in typing of this length starts the work


class Prefiller:
    """A thread that keeps the chat's cache up with the text in the editor. ``changed`` returns at once."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._changed = threading.Condition()
        self._text: str | None = None
        self._busy = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="rim-edge-prefill", daemon=True)
        self._thread.start()

    def changed(self, text: str) -> None:
        """The editor now holds ``text``. Commands are not evaluated."""
        with self._changed:
            self._text = None if text.lstrip().startswith("/") else text
            self._changed.notify_all()

    def pause(self) -> None:
        """Forget what is waiting, and return when nothing is being evaluated any more."""
        with self._changed:
            self._text = None
            self._changed.notify_all()
            while self._busy:
                self._changed.wait()

    def close(self) -> None:
        """End the thread, cancelling its work."""
        with self._changed:
            self._closed = True
            self._text = None
            self._changed.notify_all()
            if self._busy:
                self._chat.cancel()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._text is None and not self._closed:
                    self._changed.wait()
                while self._text is not None and self._changed.wait(
                    _QUIET_S
                ):  # wait returns True when it changed again
                    pass
                if self._closed:
                    return
                if self._text is None:
                    continue
                text, self._text = self._text, None
                self._busy = True
            try:
                self._chat.prefill(text)
            except RimError:  # too long, cancelled, ...: the answer itself will say what is wrong
                pass
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
