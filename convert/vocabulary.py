"""Byte-level BPE vocabularies: from ``tokenizer.json`` to GGUF metadata."""

from __future__ import annotations

from typing import Any

import gguf

from .hf_folder import ConvertError, HfFolder


def add_vocabulary(writer: gguf.GGUFWriter, source: HfFolder, n_vocab: int) -> None:
    """Add tokens, token types, merges and special tokens for a model of ``n_vocab`` embedding rows.

    Rows without a token get a placeholder of type UNUSED. Raises ConvertError for a tokenizer that is no byte-level BPE
    or whose pre-tokenizer libllama does not know under a name that is recognised here.
    """
    tokenizer = source.tokenizer
    model = tokenizer.get("model") or {}
    if model.get("type") != "BPE" or not isinstance(model.get("vocab"), dict):
        raise ConvertError(f"{source.path}/tokenizer.json holds a {model.get('type')} tokenizer; byte-level BPE can be converted")
    texts: dict[int, str] = {index: text for text, index in model["vocab"].items()}
    kinds = dict.fromkeys(texts, gguf.TokenType.NORMAL)
    for added in tokenizer.get("added_tokens") or []:
        texts[added["id"]] = added["content"]
        kinds[added["id"]] = gguf.TokenType.CONTROL if added.get("special") else gguf.TokenType.USER_DEFINED
    if texts and max(texts) >= n_vocab:
        raise ConvertError(f"{source.path}: token id {max(texts)} lies outside the {n_vocab} embedding rows")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer_name(tokenizer.get("pre_tokenizer"), source))
    writer.add_token_list([texts.get(index, f"[PAD{index}]") for index in range(n_vocab)])
    writer.add_token_types([kinds.get(index, gguf.TokenType.UNUSED) for index in range(n_vocab)])
    gguf.SpecialVocab(source.path, load_merges=True, n_vocab=n_vocab).add_to_gguf(writer, quiet=True)


def pre_tokenizer_name(pre_tokenizer: dict[str, Any] | None, source: HfFolder) -> str:
    """libllama's name for a pre-tokenizer of ``tokenizer.json``."""
    parts = (pre_tokenizer or {}).get("pretokenizers") or [pre_tokenizer or {}]
    kinds = [part.get("type") for part in parts]
    regex = "".join(str((part.get("pattern") or {}).get("Regex", "")) for part in parts)
    if kinds == ["Digits", "ByteLevel"] and parts[0].get("individual_digits"):
        return "smollm"
    if kinds == ["ByteLevel"] and parts[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Split", "ByteLevel"] and r"\p{N}{1,3}" in regex:
        return "llama-bpe"
    if kinds == ["Split", "ByteLevel"] and r"|\p{N}|" in regex:
        return "qwen2"
    raise ConvertError(f"{source.path}/tokenizer.json has a pre-tokenizer ({kinds}) that has no known name in libllama")
