"""Bytes of tokens to whole characters, with stop strings held back and cut off: what the native text stream does."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """The text of one answer while it is written.

    Attributes:
        text: what was given so far: whole characters (broken bytes are U+FFFD), cut before a stop string.
        stopped: a stop string was found.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.text = ""
        self.stopped = False

    def push(self, piece: bytes) -> str:
        """Take the bytes of a token; returns the text that is certain now."""
        if self.stopped:
            return ""
        self._held += self._decoder.decode(piece)
        return self._give(last=False)

    def finish(self) -> str:
        """The answer has ended; returns the text that was held back."""
        if self.stopped:
            return ""
        self._held += self._decoder.decode(b"", final=True)
        return self._give(last=True)

    def _give(self, last: bool) -> str:
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            end = min(found)
        elif last:
            end = len(self._held)
        else:
            end = len(self._held) - max((_start_of(self._held, stop) for stop in self._stops), default=0)
        out, self._held = self._held[:end], "" if found else self._held[end:]
        self.text += out
        return out


def _start_of(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that is a proper start of ``stop``."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
