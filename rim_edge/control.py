"""Control texts: how control tokens look when written out, and keeping what a user types from becoming one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping


class ControlTexts:
    """The control texts of a vocabulary.

    Args:
        ids: text to token id. Texts of one character cannot be broken, so they are never read as control tokens.
    """

    def __init__(self, ids: Mapping[str, int]) -> None:
        self.ids = {text: token for text, token in ids.items() if len(text) > 1}
        longest_first = sorted(self.ids, key=len, reverse=True)
        alternatives = "|".join(map(re.escape, longest_first)) or r"(?!)"  # (?!) matches nowhere
        self._whole = re.compile(alternatives)
        self._anywhere = re.compile(f"(?=(?:{alternatives}))")
        self._longest = max(map(len, longest_first), default=0)
        self._heads = {text[:n] for text in longest_first for n in range(1, len(text))}
        self._tails = {text[n:] for text in longest_first for n in range(1, len(text))}

    def shield(self, text: str, sentinel: str) -> str:
        """``text`` with ``sentinel`` inside each control text, and where one could arise beside the template's text.

        The latter is at the ends, and beside the white space that templates trim there.
        """
        places = {match.start() + 1 for match in self._anywhere.finditer(text)}
        ends = (len(text), len(text.rstrip()))
        starts = (0, len(text) - len(text.lstrip()))
        for n in range(1, self._longest):
            places |= {end for end in ends if text[max(0, end - n) : end] in self._heads}
            places |= {start for start in starts if text[start : start + n] in self._tails}
        for place in sorted(places, reverse=True):
            text = text[:place] + sentinel + text[place:]
        return text

    def split(self, text: str) -> Iterator[tuple[str, str]]:
        """``text`` cut at its whole control texts: pairs of plain text and the control text after it, "" at the end."""
        at = 0
        for match in self._whole.finditer(text):
            yield text[at : match.start()], match.group()
            at = match.end()
        yield text[at:], ""
