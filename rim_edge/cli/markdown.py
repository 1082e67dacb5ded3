"""Markdown that is styled while it streams, without ever redrawing: nothing flickers, nothing is garbled by a resize.

Every character of the text is printed once, in order, and copies out as the model wrote it; headings, code, emphasis
and list marks only get a style. Prose is wrapped between words at the terminal's width, code is left to the terminal.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from rim_edge.cli.console import char_width, clean, text_width

_RESET = "\x1b[0m"
_BOLD, _ITALIC, _CODE, _DIM = "1", "3", "36", "2"
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r" {0,3}#{1,6} ")
_BULLET = re.compile(r"( *)([-*+]|\d{1,9}[.)]) ")
_QUOTE = re.compile(r" {0,3}> ?")
_LINE_START = 12  # characters held back at the start of a line until its kind is known


class MarkdownStream:
    """Writes pieces of an answer as they come.

    Args:
        write: prints text as it is.
        width: gives the terminal's columns; asked at every line, so a resize counts from the next line on.
        styled: whether to style at all; without, the text is only cleaned.
    """

    def __init__(self, write: Callable[[str], None], width: Callable[[], int], styled: bool = True) -> None:
        self._write = write
        self._width = width
        self._styled = styled
        self._fence = ""  # the fence that closes the open code block
        self._begin_line()
        self._at_start = True

    def feed(self, piece: str) -> None:
        """Print ``piece``; a word whose end is not there yet may wait for the next piece."""
        text = clean(piece)
        if not text:
            return
        if not self._styled:
            self._write(text)
            self._at_start = text.endswith("\n")
            return
        for char in text:
            self._char(char)

    def close(self) -> None:
        """Print what is held back, end every style, and the line."""
        if self._styled:
            self._open_line(final=True)
            self._flush_marks()
            self._flush_word()
            self._style(())
        if not self._at_start:
            self._write("\n")
        self._fence = ""
        self._begin_line()
        self._at_start = True

    # ---- lines ------------------------------------------------------------------------------------------------------

    def _begin_line(self) -> None:
        self._head: str | None = ""  # the start of the line while its kind is unknown
        self._kind = ""  # "", "code", "heading"
        self._column = 0
        self._hang = 0  # columns that a wrapped line is indented by
        self._word = ""  # printed text of the word that is being collected, styles included
        self._word_width = 0
        self._marks = ""  # a run of * or _ or ` that is not closed yet
        self._previous = " "  # last character before the marks
        self._code = ""  # the run of ` that closes the open code span
        self._bold = self._italic = False
        self._current: tuple[str, ...] = ()
        self._columns = max(20, self._width())

    def _char(self, char: str) -> None:
        self._at_start = False
        if char == "\n":
            self._open_line(final=True)
            self._flush_marks()
            self._flush_word()
            self._style(())
            self._write("\n")
            self._begin_line()
            self._at_start = True
        elif self._head is not None:
            self._head += char
            self._open_line(final=False)
        else:
            self._inline(char)

    def _open_line(self, final: bool) -> None:
        """Decide what kind of line this is as soon as its start allows it, and print the start."""
        head = self._head
        if head is None:
            return
        fence = _FENCE.match(head)
        undecided = (
            not final and len(head) < _LINE_START and re.fullmatch(r" *([`~]*|#{1,6}|[-*+]|\d{1,9}[.)]?|>)?", head)
        )
        if undecided:
            return
        self._head = None
        if self._fence:
            closes = fence is not None and fence.group(1).startswith(self._fence) and not head.strip(" `~")
            self._kind = "code"
            if closes and final:
                self._fence = ""
        elif fence is not None:
            self._fence = fence.group(1)
            self._kind = "code"
        elif _HEADING.match(head):
            self._kind = "heading"
        elif bullet := _BULLET.match(head):
            self._hang = text_width(bullet.group())
            self._emit(bullet.group(1))
            self._emit(bullet.group(2), (_DIM,))
            self._flush_word()
            head = head[bullet.end(2) :]
        elif quote := _QUOTE.match(head):
            self._hang = text_width(quote.group())
            self._emit(quote.group(), (_DIM,))
            self._flush_word()
            head = head[quote.end() :]
        for char in head:
            self._inline(char)

    # ---- inside a line ----------------------------------------------------------------------------------------------

    def _inline(self, char: str) -> None:
        if self._kind == "code":
            self._emit(char, (_CODE,))
            self._flush_word(wrap=False)
            return
        if char in "*_`" and self._marks in ("", char * len(self._marks)) and (not self._code or char == "`"):
            self._marks += char
            return
        if self._marks:
            self._flush_marks(char)
            if char in "*_`" and not self._code:
                self._marks = char
                return
        self._emit(char, self._styles())
        self._previous = char
        if char in " \t":
            self._flush_word()

    def _styles(self) -> tuple[str, ...]:
        if self._code:
            return (_CODE,)
        styles = [_BOLD] if self._bold or self._kind == "heading" else []
        return (*styles, _ITALIC) if self._italic else tuple(styles)

    def _flush_marks(self, following: str = " ") -> None:
        """Print a run of marks; it opens or closes a style where Markdown says so."""
        marks, self._marks = self._marks, ""
        if not marks:
            return
        if marks[0] == "`":
            if not self._code:
                self._code = marks
                self._emit(marks, (_CODE,))
            else:
                self._emit(marks, (_CODE,))
                if marks == self._code:
                    self._code = ""
        else:
            opens = not following.isspace() and (marks[0] == "*" or not self._previous.isalnum())
            closes = not self._previous.isspace() and (marks[0] == "*" or not following.isalnum())
            before = self._styles()
            if len(marks) in (2, 3) and (closes if self._bold else opens):
                self._bold = not self._bold
            if len(marks) in (1, 3) and (closes if self._italic else opens):
                self._italic = not self._italic
            self._emit(marks, before if len(before) > len(self._styles()) else self._styles())
        self._previous = marks[-1]

    # ---- printing ---------------------------------------------------------------------------------------------------

    def _emit(self, text: str, styles: tuple[str, ...] = ()) -> None:
        """Add text to the word that is being collected."""
        if styles != self._current:
            self._word += _RESET if self._current else ""
            self._word += f"\x1b[{';'.join(styles)}m" if styles else ""
            self._current = styles
        self._word += text
        self._word_width += text_width(text)
        if self._word_width >= self._columns or (text and char_width(text[-1]) == 2):
            self._flush_word()  # too long for any line, or a script that breaks anywhere

    def _flush_word(self, wrap: bool = True) -> None:
        if not self._word:
            return
        visible = self._word_width
        trailing = 1 if self._word.endswith((" ", "\t")) else 0
        if wrap and self._column and self._column + visible - trailing > self._columns:
            indent = " " * (self._hang if self._hang < self._columns // 2 else 0)
            self._write("\n" + indent)
            self._column = len(indent)
            self._columns = max(20, self._width())
        if (
            wrap and trailing and self._column + visible > self._columns
        ):  # the blank falls off the edge, the next word wraps
            self._word = self._word[:-1]
        self._write(self._word)
        self._column += visible
        self._word, self._word_width = "", 0

    def _style(self, styles: tuple[str, ...]) -> None:
        if styles != self._current:
            self._write(_RESET if self._current else "")
            self._current = styles
