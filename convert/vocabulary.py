"""Vocabularies: from ``tokenizer.json`` to GGUF metadata."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import gguf

from .checkpoint import Checkpoint
from .failure import ConvertError
from .hf_folder import read_json_if_there
from .pre_tokenizer import pre_tokenizer_name
from .sentencepiece_bpe import is_sentencepiece_bpe, sentencepiece_vocabulary
from .tokenizer_file import Tokenizer, compact

_EOS_OF_LIBLLAMA = 11  # what libllama takes for the end of a byte-level BPE text where the file names none

#: placeholders of rows without a token
UNUSED_TEXT = "[PAD{}]"


def add_vocabulary(writer: gguf.GGUFWriter, checkpoint: Checkpoint) -> list[str]:
    """Add tokens, token types, merges or scores, special tokens and the chat template; returns notices for the user.

    Rows without a token get a placeholder of type UNUSED; the memory tokens are CONTROL. Raises ConvertError for a
    tokenizer that libllama cannot reproduce.
    """
    tokenizer, n_vocab = checkpoint.tokenizer, checkpoint.n_vocab
    notices = _check(tokenizer, n_vocab)
    texts = _texts(tokenizer, n_vocab)
    kinds = _kinds(tokenizer, checkpoint)
    pieces = sentencepiece_vocabulary(tokenizer) if is_sentencepiece_bpe(tokenizer) else None
    special = special_vocabulary(checkpoint, with_merges=pieces is None or pieces.scores is None)
    if pieces is not None:
        writer.add_tokenizer_model(pieces.model)
        writer.add_tokenizer_pre(pieces.pre)
        kinds.update(pieces.kinds)
        texts = {**texts, **{index: text for index, text in pieces.texts.items() if index < n_vocab}}
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre_tokenizer_name(tokenizer))
        if "eos" not in special.special_token_ids and n_vocab > _EOS_OF_LIBLLAMA:
            notices.append(f"the model names no end-of-text token: llama.cpp will take token {_EOS_OF_LIBLLAMA} for it")
    tokens = [texts.get(index, UNUSED_TEXT.format(index)) for index in range(n_vocab)]
    if len(set(tokens)) < n_vocab:
        raise ConvertError(f"{tokenizer.folder}/tokenizer.json has two tokens of the same text, which libllama refuses")
    writer.add_token_list(tokens)
    if pieces is not None and pieces.scores is not None:
        writer.add_token_scores([pieces.scores.get(index, -1e6) for index in range(n_vocab)])
    writer.add_token_types([kinds.get(index, gguf.TokenType.UNUSED) for index in range(n_vocab)])
    special.add_to_gguf(writer, quiet=True)
    if pieces is not None:
        writer.add_add_space_prefix(pieces.space_prefix)
        notices += pieces.notices
    return notices


def _check(tokenizer: Tokenizer, n_vocab: int) -> list[str]:
    """Raise ConvertError for what libllama cannot do; returns notices about the rest."""
    where = f"{tokenizer.folder}/tokenizer.json"
    model = tokenizer.parsed.get("model") or {}
    if model.get("type") != "BPE" or not tokenizer.vocabulary:
        raise ConvertError(f"{where} holds a {model.get('type')} tokenizer; only BPE can be converted")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise ConvertError(f"{where} has {key} {model[key]!r}, which libllama does not know")
    if max(tokenizer.vocabulary.values()) >= n_vocab:
        raise ConvertError(
            f"{where} has the token {max(tokenizer.vocabulary.values())}, outside the {n_vocab} embedding rows"
        )
    notices = []
    if beyond := sorted(token["content"] for index, token in tokenizer.added.items() if index >= n_vocab):
        notices.append(
            f"tokens without an embedding row are left out: {', '.join(beyond[:3])}"
            + (", ..." if len(beyond) > 3 else "")
        )
    if not is_sentencepiece_bpe(tokenizer):
        normalizer = tokenizer.parsed.get("normalizer")
        steps = (normalizer or {}).get("normalizers", [normalizer]) if normalizer else []
        if other := [step for step in steps if (step or {}).get("type") != "NFC"]:
            raise ConvertError(f"{where} normalizes text in a way that libllama does not know: {compact(other[0])}")
        if steps:
            notices.append(
                "the tokenizer composes Unicode (NFC) first and llama.cpp does not: decomposed text gives other tokens"
            )
    if stripping := [
        t["content"] for i, t in sorted(tokenizer.added.items()) if (t.get("lstrip") or t.get("rstrip")) and i < n_vocab
    ]:
        notices.append(f"llama.cpp does not strip the spaces around {stripping[0]!r} as the tokenizer does")
    return notices


def _texts(tokenizer: Tokenizer, n_vocab: int) -> dict[int, str]:
    texts = {index: text for text, index in tokenizer.vocabulary.items()}
    texts.update({index: token["content"] for index, token in tokenizer.added.items() if index < n_vocab})
    return texts


def _kinds(tokenizer: Tokenizer, checkpoint: Checkpoint) -> dict[int, gguf.TokenType]:
    kinds = dict.fromkeys(tokenizer.vocabulary.values(), gguf.TokenType.NORMAL)
    for index, token in tokenizer.added.items():
        kinds[index] = gguf.TokenType.CONTROL if token.get("special") else gguf.TokenType.USER_DEFINED
    if checkpoint.spec is not None:
        kinds.update(dict.fromkeys(checkpoint.spec.memory_ids, gguf.TokenType.CONTROL))
    return kinds


def special_vocabulary(checkpoint: Checkpoint, with_merges: bool) -> gguf.SpecialVocab:
    """Special tokens, merges and the chat template: the tokenizer's folder first, then the model's."""
    special = model = _read_special(checkpoint.tokenizer.folder, checkpoint, with_merges)
    if checkpoint.folder != checkpoint.tokenizer.folder:
        model = _read_special(checkpoint.folder, checkpoint, with_merges=False)
    for kind, index in model.special_token_ids.items():
        special.special_token_ids.setdefault(kind, index)
    stated = checkpoint.config.get("eos_token_id") or read_json_if_there(
        checkpoint.folder / "generation_config.json"
    ).get("eos_token_id")
    ends = [index for index in (stated if isinstance(stated, list) else [stated]) if type(index) is int]
    if ends and 0 <= ends[0] < checkpoint.n_vocab:
        special.special_token_ids.setdefault("eos", ends[0])
    begin = _begin_token(checkpoint.tokenizer)
    if begin is not None and special.special_token_ids.setdefault("bos", begin) == begin:
        stated = read_json_if_there(checkpoint.tokenizer.folder / "tokenizer_config.json").get("add_bos_token")
        special.add_special_token["bos"] = stated is not False
    special.add_special_token.setdefault("bos", False)
    template: Any = special.chat_template if special.chat_template is not None else model.chat_template
    if isinstance(template, list):  # one file holds one template here: several would be written in no fixed order
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default", next(iter(named.values()), None))
    special.chat_template = template if isinstance(template, str) else None
    return special


def _begin_token(tokenizer: Tokenizer) -> int | None:
    """The token that the tokenizer itself puts before every text, or None."""
    processor = tokenizer.parsed.get("post_processor") or {}
    for step in processor.get("processors", [processor]):
        if step.get("type") == "TemplateProcessing" and len(step.get("single") or []) > 1:
            first = step["single"][0].get("SpecialToken")
            return tokenizer.id_of(str(first.get("id"))) if isinstance(first, dict) else None
    return None


def _read_special(folder: Path, checkpoint: Checkpoint, with_merges: bool) -> gguf.SpecialVocab:
    logger = logging.getLogger("gguf.vocab")
    before = logger.level
    logger.setLevel(logging.ERROR)  # it warns about ids outside the vocabulary, which are skipped
    try:
        return gguf.SpecialVocab(folder, load_merges=with_merges, n_vocab=checkpoint.n_vocab)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ConvertError(f"{folder}: the tokenizer's files are damaged ({error})") from None
    finally:
        logger.setLevel(before)
