"""Varied strings for comparing tokenizers: words, spaces, digits, Unicode, emoji, code, HTML, control texts."""

from __future__ import annotations

import random
import unicodedata

_WORDS = [
    "Tom",
    "has",
    "apples",
    "more",
    "the",
    "of",
    "don't",
    "I'll",
    "we've",
    "THEY'RE",
    "naïve",
    "Straße",
    "İstanbul",
    "ﬁne",
]
_SPACES = [" ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", " \n ", "\u00a0", "\u3000", "      ", "\u2009", "▁", " ▁"]
_DIGITS = ["0", "7", "42", "365", "1234", "1234567890", "3.14", "1,000", "½", "²", "٣", "Ⅷ", "\uff11\uff12\uff13"]
_UNICODE = [
    "Привет",
    "мир",
    "你好",
    "世界",
    "こんにちは",
    "한국어",
    "שלום",
    "العربية",
    "हिन्दी",
    "ไทย",
    "é",
    "ö",
    "\U0001d49c",
    "𐍈",
    "œuvre",
    "ǅ",
]
_EMOJI = ["👋", "🌍", "👩‍👩‍👧", "🏳️‍🌈", "☕", "🇪🇺", "👍🏽", "✅"]
_CODE = [
    "def f(x):",
    "\treturn x**2",
    "for(;;){}",
    "a->b",
    "x != y",
    "//",
    "/*",
    "#include <stdio.h>",
    "{'a': 1}",
    "$PATH",
    "`ls`",
    "0xFF",
    "=>",
]
_HTML = ["<b>", "</b>", "<m>", "<p>", "<br/>", "&nbsp;", "<div class='x'>", "<!-- -->", "<table>", "<h1>"]
_CONTROL = [
    "<|rim_begin|>", "<|rim_memory|>", "<|rim_end|>", "<|endoftext|>", "<|im_start|>", "<|eot_id|>", "<bos>", "<eos>",
    "<pad>", "<|rim_begin", "rim_end|>", "<start_of_turn>", "<0x41>",
]  # fmt: skip
_PUNCTUATION = [
    ".",
    ",",
    "!",
    "?",
    "...",
    "—",
    "“quoted”",
    "'",
    "''",
    "-",
    "---",
    "(",
    ")",
    "[x]",
    ";",
    ":",
    "…",
    "%",
    "€",
]
_KINDS = [_WORDS, _SPACES, _DIGITS, _UNICODE, _EMOJI, _CODE, _HTML, _CONTROL, _PUNCTUATION]


def varied_strings(count: int = 2000, seed: int = 0) -> list[str]:
    """``count`` strings, the same for the same seed, all in composed form (NFC): libllama does not compose."""
    rng = random.Random(seed)
    strings = [text for kind in _KINDS for text in kind][: count // 4]
    while len(strings) < count:
        kinds = rng.choices(_KINDS, k=3)
        pieces = [rng.choice(rng.choice(kinds)) + rng.choice(["", "", " "]) for _ in range(rng.randint(1, 14))]
        strings.append("".join(pieces))
    return [unicodedata.normalize("NFC", text) for text in strings]
