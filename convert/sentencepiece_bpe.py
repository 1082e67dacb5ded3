"""Tokenizers of the SentencePiece kind (Gemma, Llama-2): BPE over text with ``▁`` for spaces, bytes as a last resort.

libllama has two algorithms for them. The older one (``llama``) merges whatever pair forms a token, the token with the
highest score first; the newer one (``gemma4``) follows the list of merges. They agree where the list holds every pair
that forms a token, in the order of the tokens; that is checked, and the older one, which every llama.cpp reads, is used
where it is exact.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gguf

from .failure import ConvertError
from .tokenizer_file import Tokenizer, compact

SPACE = "▁"
_NO_MERGE = -1e6  # score of a token that no merge forms


@dataclass(frozen=True)
class Pieces:
    """What GGUF says about such a vocabulary.

    Attributes:
        model, pre: ``tokenizer.ggml.model`` and ``tokenizer.ggml.pre``.
        space_prefix: whether a space is put before a text.
        texts, kinds: where they differ from the ordinary ones, by id.
        scores: by id; None where the merges are written instead.
    """

    model: str
    pre: str
    space_prefix: bool
    kinds: dict[int, gguf.TokenType]
    texts: dict[int, str]
    scores: dict[int, float] | None
    notices: list[str] = field(default_factory=list)


def is_sentencepiece_bpe(tokenizer: Tokenizer) -> bool:
    """Whether bytes are a last resort: tokens ``<0x00>`` .. ``<0xFF>`` instead of a byte-level alphabet."""
    return bool((tokenizer.parsed.get("model") or {}).get("byte_fallback"))


def sentencepiece_vocabulary(tokenizer: Tokenizer) -> Pieces:
    """Read such a vocabulary. Raises ConvertError for one that libllama cannot reproduce."""
    space_prefix = _space_prefix(tokenizer)
    kinds = _byte_kinds(tokenizer)
    model = tokenizer.parsed["model"]
    unknown = tokenizer.vocabulary.get(model.get("unk_token") or "")
    if unknown is not None:
        kinds[unknown] = gguf.TokenType.UNKNOWN
    texts = {
        i: t["content"].replace(SPACE, " ")
        for i, t in tokenizer.added.items()
        if t.get("normalized") and not t.get("special")
    }
    merges = _merges(tokenizer)
    if _scores_are_exact(tokenizer, merges):
        return Pieces("llama", "default", space_prefix, kinds, texts, _scores(tokenizer, merges))
    mixed = next((left + right for left, right in merges if "\n" in left + right and (left + right).strip("\n")), None)
    if space_prefix or mixed is not None:
        reason = f"across a line break ({mixed!r})" if mixed is not None else "together with a leading space"
        raise ConvertError(f"{tokenizer.folder}/tokenizer.json has merges that libllama cannot follow {reason}")
    notice = (
        "the merges follow no order of tokens: llama.cpp must know the tokenizer 'gemma4', which begins texts with BOS"
    )
    return Pieces("gemma4", "gemma4", False, kinds, texts, None, [notice])


def _space_prefix(tokenizer: Tokenizer) -> bool:
    """Whether a space is put before a text. Raises ConvertError for normalizing that is not known."""
    where = f"{tokenizer.folder}/tokenizer.json"
    normalizer: dict[str, Any] = tokenizer.parsed.get("normalizer") or {}
    steps = normalizer.get("normalizers", [normalizer] if normalizer else [])
    prefix = replaced = False
    for step in steps:
        if step.get("type") == "Prepend" and step.get("prepend") == SPACE:
            prefix = True
        elif step.get("type") == "Replace" and step.get("pattern") == {"String": " "} and step.get("content") == SPACE:
            replaced = True
        else:
            raise ConvertError(f"{where} normalizes text in a way that libllama does not know: {compact(step)}")
    splitter: dict[str, Any] = tokenizer.parsed.get("pre_tokenizer") or {}
    if (
        splitter.get("type") == "Metaspace"
        and splitter.get("replacement", SPACE) == SPACE
        and not splitter.get("split", True)
    ):
        scheme = splitter.get("prepend_scheme", "always")
        prefix, replaced, splitter = scheme in ("first", "always"), True, {}
    harmless = not splitter or (
        replaced and splitter.get("type") == "Split" and splitter.get("pattern") == {"String": " "}
    )
    if not replaced or not harmless:
        raise ConvertError(
            f"{where} splits text in a way that libllama does not know: {compact(splitter or normalizer)}"
        )
    return prefix


def _byte_kinds(tokenizer: Tokenizer) -> dict[int, gguf.TokenType]:
    kinds = {}
    for byte in range(256):
        index = tokenizer.vocabulary.get(f"<0x{byte:02X}>")
        if index is None:
            raise ConvertError(
                f"{tokenizer.folder}/tokenizer.json lacks the byte token <0x{byte:02X}>, which libllama needs"
            )
        kinds[index] = gguf.TokenType.BYTE
    return kinds


def _merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    stored = tokenizer.parsed["model"].get("merges") or []
    try:
        pairs = [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in stored]
        return [(left, right) for left, right in pairs]
    except (ValueError, TypeError, AttributeError):
        raise ConvertError(f"{tokenizer.folder}/tokenizer.json is damaged: its merges cannot be read") from None


def _scores_are_exact(tokenizer: Tokenizer, merges: list[tuple[str, str]]) -> bool:
    """Whether merging by token scores gives what merging by the list gives."""
    ranks: dict[str, list[int]] = {}
    for rank, (left, right) in enumerate(merges):
        ranks.setdefault(left + right, []).append(rank)
    cut_out = {t["content"] for t in tokenizer.added.values() if not t.get("special") and SPACE not in t["content"]}
    mixed_runs: set[str] = set()
    last = -1
    for token in sorted(ranks, key=lambda text: ranks[text][0]):
        first_rank, last_rank = ranks[token][0], ranks[token][-1]
        if token in cut_out:
            continue
        if last_rank - first_rank >= len(ranks[token]) and token == token[0] * len(token):
            mixed_runs.add(token[0])
            continue
        if first_rank < last:
            return False  # pairs of different tokens are mixed
        last = last_rank
    return _runs_grow_from_the_left(merges, mixed_runs) and _every_pair_is_listed(tokenizer, merges)


def _runs_grow_from_the_left(merges: list[tuple[str, str]], characters: set[str]) -> bool:
    """Whether runs of a character (Gemma's runs of spaces) grow by one more character, the longest first.

    Then the scores, which are better for longer runs, cut a text into the same runs as the list.
    """
    last: dict[str, int] = {}
    for left, right in merges:
        if right in characters and left == right * len(left):
            if len(left) >= last.get(right, len(left) + 1):
                return False
            last[right] = len(left)
    return True


def _every_pair_is_listed(tokenizer: Tokenizer, merges: list[tuple[str, str]]) -> bool:
    """Whether no two tokens form a third that the list does not form."""
    known = set(tokenizer.vocabulary) | {token["content"] for token in tokenizer.added.values()}
    listed = set(merges)
    for token in known:
        for cut in range(1, len(token)):
            if token[:cut] in known and token[cut:] in known and (token[:cut], token[cut:]) not in listed:
                return False
    return True


def _scores(tokenizer: Tokenizer, merges: list[tuple[str, str]]) -> dict[int, float]:
    """Minus the rank of the first merge that forms a token; exact in float32 up to 2^24 merges."""
    rank: dict[str, int] = {}
    for left, right in merges:
        rank.setdefault(left + right, len(rank))
    return {index: -float(rank[text]) if text in rank else _NO_MERGE for text, index in tokenizer.vocabulary.items()}
