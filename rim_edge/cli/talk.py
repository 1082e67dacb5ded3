"""One conversation on the screen: sends a message, streams its answer, and copes with what can go wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from rim_edge.cli import console, terminal
from rim_edge.cli.markdown import MarkdownStream
from rim_edge.cli.render import footer
from rim_edge.cli.work import Work
from rim_edge.errors import CancelledError, ContextFullError

if TYPE_CHECKING:
    from rim_edge.chat import Chat
    from rim_edge.cli.editor import Editor
    from rim_edge.cli.prefill import Prefiller
    from rim_edge.model import Model


class Talk:
    """A chat with its options, as the commands of ``chat`` see it.

    Attributes:
        model, chat: what answers.
        options: keyword arguments of ``Chat.stream``; the slash commands change them.
        editor: where messages come from; set before the first message.
        prefiller: evaluates what is being typed, or None.
    """

    def __init__(self, model: Model, chat: Chat, options: dict[str, Any]) -> None:
        self.model = model
        self.chat = chat
        self.options = options
        self.editor: Editor | None = None
        self.prefiller: Prefiller | None = None

    def say(self, text: str) -> None:
        """Answer ``text``. Where the context is full, offer to drop the oldest turns. Raises RimError."""
        self._with_room(lambda: self.chat.stream(text, **self.options))

    def again(self) -> None:
        """Answer the last message once more, in place of its answer. Raises RimError."""
        self._with_room(lambda: self.chat.stream_again(**self.options))

    def _with_room(self, start: Callable[[], Iterator[str]]) -> None:
        try:
            self._stream(start)
        except ContextFullError as error:
            if not error.turns or self.editor is None:
                raise
            console.error(error)
            if self.editor.confirm(f"Drop the oldest {console.count(error.turns, 'turn')} and go on?"):
                dropped = self.chat.drop_oldest(error.turns)
                console.remark(f"Note: dropped the oldest {console.count(dropped, 'turn')}")
                self._stream(start)

    def _stream(self, start: Callable[[], Iterator[str]]) -> None:
        work: Work[str, None]

        def answer(put: Callable[[str], None]) -> None:
            if self.prefiller is not None:
                self.prefiller.pause()
            if work.interrupted:  # Ctrl-C went to the prefill
                raise CancelledError("interrupted")
            for piece in start():
                put(piece)

        work = Work(answer, self.chat.cancel)
        view = MarkdownStream(
            lambda text: console.out(text, newline=False), terminal.columns, console.coloured(sys.stdout)
        )
        before = self.chat.last
        try:
            with ExitStack() as stack:
                if self.editor is not None and self.editor.interactive:
                    stack.enter_context(terminal.without_echo())
                stack.callback(view.close)
                for piece in work.pieces():
                    view.feed(piece)
        except CancelledError:  # before any text was there
            if self.editor is not None and self.editor.interactive:
                console.remark("stopped", err=False)
                return
        if work.interrupted and (self.editor is None or not self.editor.interactive):
            raise KeyboardInterrupt
        last = self.chat.last
        if last is not None and last is not before:
            if not last.text:
                console.out()
            console.out(footer(last), dim=True)
            for notice in last.notices:
                console.remark(f"Note: {notice}")
