"""libllama's names for the pre-tokenizers of byte-level BPE tokenizers, recognised from ``tokenizer.json``.

libllama knows pre-tokenizers by name only, each with its regular expressions built in (``src/llama-vocab.cpp``); a
wrong name gives other token ids, so what is not recognised exactly is refused.
"""

from __future__ import annotations

from typing import Any

from .failure import ConvertError
from .tokenizer_file import Tokenizer, compact

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+" + _TAIL
_QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+" + _TAIL
_QWEN35 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+" + _TAIL

#: (regular expression, whole words are looked up before merging) -> name
_BY_EXPRESSION = {
    (_LLAMA3, True): "llama-bpe",
    (_LLAMA3, False): "dbrx",
    (_QWEN2, False): "qwen2",
    (_QWEN35, False): "qwen35",
}


def pre_tokenizer_name(tokenizer: Tokenizer) -> str:
    """The name of a byte-level BPE tokenizer's pre-tokenizer.

    Raises ConvertError, with what was found, for one that libllama does not know.
    """
    parts = _parts(tokenizer.parsed.get("pre_tokenizer"))
    ignore_merges = bool((tokenizer.parsed.get("model") or {}).get("ignore_merges"))
    name = None
    if [part.get("type") for part in parts] == ["Digits", "ByteLevel"]:
        if parts[0].get("individual_digits") and _is_byte_level(parts[1], split=True) and not ignore_merges:
            name = "smollm"
    elif [part.get("type") for part in parts] == ["ByteLevel"]:
        name = "gpt-2" if _is_byte_level(parts[0], split=True) and not ignore_merges else None
    elif [part.get("type") for part in parts] == ["Split", "ByteLevel"]:
        split = parts[0]
        plain = split.get("behavior") == "Isolated" and not split.get("invert")
        if plain and _is_byte_level(parts[1], split=False):
            name = _BY_EXPRESSION.get((str((split.get("pattern") or {}).get("Regex")), ignore_merges))
    if name is None:
        found = compact(tokenizer.parsed.get("pre_tokenizer")) + (" with ignore_merges" if ignore_merges else "")
        raise ConvertError(
            f"{tokenizer.folder}/tokenizer.json has a pre-tokenizer that libllama does not know: {found}"
        )
    return name


def _parts(pre_tokenizer: Any) -> list[dict[str, Any]]:
    if not isinstance(pre_tokenizer, dict):
        return []
    parts = pre_tokenizer.get("pretokenizers") if pre_tokenizer.get("type") == "Sequence" else [pre_tokenizer]
    return [part for part in parts or [] if isinstance(part, dict)]


def _is_byte_level(part: dict[str, Any], split: bool) -> bool:
    """Whether a ``ByteLevel`` part adds no space and does (or does not) split words itself."""
    return not part.get("add_prefix_space", True) and bool(part.get("use_regex", True)) == split
