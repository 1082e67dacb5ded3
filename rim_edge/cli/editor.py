"""The prompt of ``chat``: line editing, messages of several lines, history, completion. One class per kind of input."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rim_edge.cli import console
from rim_edge.cli.questions import decode_line
from rim_edge.cli.slash import complete

if TYPE_CHECKING:
    from prompt_toolkit.completion import CompleteEvent, Completion
    from prompt_toolkit.document import Document
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

PROMPT = "> "
MORE = ". "


class Editor(Protocol):
    """Where the user's messages come from."""

    interactive: bool

    def read(self) -> str:
        """The next message. Raises EOFError at the end and KeyboardInterrupt on Ctrl-C."""

    def confirm(self, question: str) -> bool:
        """Whether the user agrees; without a terminal always yes."""


def open_editor(changed: Callable[[str], None]) -> Editor:
    """The editor that fits standard input; ``changed`` is told the text while it is typed, where that can be seen."""
    if not console.is_terminal(sys.stdin):
        return LineInput()
    if console.is_dumb() or not console.is_terminal(sys.stdout):
        return PlainEditor()
    return RichEditor(changed)


class LineInput:
    """Standard input that is no terminal: each line is a message; a backslash at its end joins the next one to it."""

    interactive = False

    def __init__(self) -> None:
        self._messages = _join(decode_line(raw, number) for number, raw in enumerate(sys.stdin.buffer, 1))

    def read(self) -> str:
        for message in self._messages:
            return message
        raise EOFError

    def confirm(self, question: str) -> bool:
        return True


class PlainEditor:
    """A terminal without cursor movement: whole lines, as the terminal itself edits them."""

    interactive = True

    def read(self) -> str:
        try:
            return next(_join(self._lines()))
        except (KeyboardInterrupt, EOFError):
            console.out()
            raise

    def _lines(self) -> Iterator[str]:
        prompt = PROMPT
        while True:
            yield input(prompt) + "\n"
            prompt = MORE

    def confirm(self, question: str) -> bool:
        return _yes(input(f"{question} [Y/n] "))


def _join(lines: Iterable[str]) -> Iterator[str]:
    """Messages out of lines: those that end in a backslash go on in the next line."""
    message = ""
    for line in lines:
        text = line.rstrip("\r\n")
        if text.endswith("\\"):
            message += text[:-1] + "\n"
            continue
        yield message + text
        message = ""
    if message:
        yield message.rstrip("\n")


def _yes(reply: str) -> bool:
    return reply.strip().lower() in ("", "y", "yes")


class RichEditor:
    """A full terminal: prompt_toolkit. Enter sends; Alt-Enter, or a backslash before Enter, begins a new line."""

    interactive = True

    def __init__(self, changed: Callable[[str], None]) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import Completer, Completion
        from prompt_toolkit.shortcuts import CompleteStyle

        class SlashCompleter(Completer):
            def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
                for start, text in complete(document.text_before_cursor):
                    yield Completion(text, start_position=start)

        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=MORE,
            history=_history(),
            completer=SlashCompleter(),
            complete_style=CompleteStyle.READLINE_LIKE,
            complete_while_typing=False,
            key_bindings=_keys(),
            enable_history_search=True,
        )
        self._session.default_buffer.on_text_changed += lambda buffer: changed(buffer.text)

    def read(self) -> str:
        try:
            return self._session.prompt()
        except KeyboardInterrupt:
            if not self._session.default_buffer.text:
                console.remark("Ctrl-D or /exit leaves", err=False)
            raise

    def confirm(self, question: str) -> bool:
        try:
            return _yes(input(f"{question} [Y/n] "))
        except (EOFError, KeyboardInterrupt):
            console.out()
            return False


def _keys() -> KeyBindings:
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    @keys.add("enter")
    def send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


# ---- history --------------------------------------------------------------------------------------------------------


def history_path() -> Path:
    """The history file: ``rim-edge/chat_history`` in the XDG state folder."""
    base = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(base) if os.path.isabs(base) else Path.home() / ".local" / "state"
    return folder / "rim-edge" / "chat_history"


def _history() -> History:
    """History in a file that only the user can read; in memory where the file cannot be written."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    class SafeHistory(FileHistory):
        def store_string(self, string: str) -> None:
            with contextlib.suppress(OSError):  # the disk filled up or went away: talking goes on
                super().store_string(string)

        def load_history_strings(self) -> Iterable[str]:
            try:
                return list(super().load_history_strings())
            except OSError:
                return []

    try:
        path = history_path()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600))
    except (OSError, RuntimeError):  # RuntimeError: no home directory
        return InMemoryHistory()
    return SafeHistory(str(path))
