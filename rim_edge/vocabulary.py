"""Closed vocabularies (``rim.closed_vocabulary``): naming the words that a model never saw.

The tokenizer of such a model was trained so that each word of its vocabulary is one token; a word that needs more was
not in it.
"""

from __future__ import annotations

import re

from rim_edge.backends.base import Tokenizer
from rim_edge.spec import RimSpec

_PIECE = re.compile(r" ?[^\W\d_]+|[^\w\s]|_")
_MOST_NAMED = 8


def unknown_words(tokenizer: Tokenizer, text: str) -> list[str]:
    """Words and signs of ``text`` that are not one token, each once, in order. Digits are not looked at."""
    found: dict[str, None] = {}
    for match in _PIECE.finditer(text):
        if len(tokenizer.tokenize(match.group())) > 1:
            found[match.group().strip()] = None
    return list(found)


def notices(spec: RimSpec | None, tokenizer: Tokenizer, text: str) -> tuple[str, ...]:
    """A line that names the unknown words of ``text``; nothing where there are none or the vocabulary is open."""
    words = unknown_words(tokenizer, text) if spec is not None and spec.closed_vocabulary else []
    if not words:
        return ()
    named = ", ".join(repr(word) for word in words[:_MOST_NAMED])
    more = f" and {len(words) - _MOST_NAMED} more" if len(words) > _MOST_NAMED else ""
    return (f"this model has a closed vocabulary and never saw {named}{more}: its answer may be wrong",)
