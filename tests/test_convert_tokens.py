"""Token ids: a converted file and the library `tokenizers` cut the same strings the same way."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_checkpoints import write_plain
from made_tokenizers import MEMORY_TEXTS, byte_level, save, sentencepiece
from rim_edge.convert.failure import ConvertError
from rim_edge.convert.to_gguf import convert
from tokenizers import Tokenizer
from varied_strings import varied_strings

from rim_edge import _native

TOKENIZERS = {
    "gpt2": lambda: byte_level("gpt2", MEMORY_TEXTS),
    "smollm": lambda: byte_level("smollm", MEMORY_TEXTS),
    "llama3": lambda: byte_level("llama3", MEMORY_TEXTS),
    "qwen2": lambda: byte_level("qwen2", MEMORY_TEXTS),
    "gemma3": lambda: sentencepiece(MEMORY_TEXTS, 440),
    "listed merges": lambda: sentencepiece(MEMORY_TEXTS, 440, listed_only=True),
}


def converted(folder: Path, tokenizer: Tokenizer) -> _native.Model:
    write_plain(folder / "hf", tokenizer)
    convert(folder / "hf", folder / "model.gguf")
    return _native.Model(str(folder / "model.gguf"), vocab_only=True)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_2000_varied_strings_get_the_same_ids(kind: str, tmp_path: Path) -> None:
    tokenizer = TOKENIZERS[kind]()
    model = converted(tmp_path, tokenizer)
    for parse_special in (True, False):
        tokenizer.encode_special_tokens = not parse_special  # False: typed control texts are text
        for text in varied_strings():
            wanted = tokenizer.encode(text, add_special_tokens=False).ids
            assert model.tokenize(text, parse_special=parse_special) == wanted, (text, parse_special)


def test_a_vocabulary_whose_merges_form_every_pair_is_written_for_every_llama_cpp(tmp_path: Path) -> None:
    assert converted(tmp_path / "all", sentencepiece(n_vocab=440)).vocab_type == "spm"
    assert converted(tmp_path / "listed", sentencepiece(n_vocab=440, listed_only=True)).vocab_type == "bpe"


def test_a_begin_token_is_added_where_the_tokenizer_adds_one(tmp_path: Path) -> None:
    assert converted(tmp_path / "llama3", byte_level("llama3")).add_bos
    assert not converted(tmp_path / "qwen2", byte_level("qwen2")).add_bos
    assert converted(tmp_path / "gemma3", sentencepiece(n_vocab=440)).add_bos


def test_memory_tokens_typed_by_a_user_stay_text(tmp_path: Path) -> None:
    tokenizer = byte_level("qwen2", MEMORY_TEXTS)
    model = converted(tmp_path, tokenizer)
    ids = {tokenizer.token_to_id(text) for text in MEMORY_TEXTS}
    assert ids <= set(model.control_ids)
    assert not ids & set(model.tokenize("a<|rim_begin|><|rim_memory|><|rim_end|>b"))


def test_decomposed_text_is_told_of(tmp_path: Path) -> None:
    write_plain(tmp_path / "hf", byte_level("qwen2"))
    (notice,) = convert(tmp_path / "hf", tmp_path / "model.gguf")
    assert "NFC" in notice


def test_a_pre_tokenizer_that_libllama_does_not_know_is_refused(tmp_path: Path) -> None:
    from tokenizers import pre_tokenizers

    tokenizer = byte_level("gpt2")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel()])
    write_plain(tmp_path / "hf", tokenizer)
    with pytest.raises(ConvertError, match=r"pre-tokenizer that libllama does not know: .*WhitespaceSplit"):
        convert(tmp_path / "hf", tmp_path / "model.gguf")


def test_missing_byte_tokens_and_other_kinds_of_tokenizer_are_refused(tmp_path: Path) -> None:
    from tokenizers.models import BPE, WordLevel

    write_plain(tmp_path / "hf")
    save(Tokenizer(WordLevel({"a": 0}, unk_token="a")), tmp_path / "hf")
    with pytest.raises(ConvertError, match="WordLevel tokenizer"):
        convert(tmp_path / "hf", tmp_path / "model.gguf")
    pieces = sentencepiece(n_vocab=440)
    pieces.model = BPE({"a": 0, "▁": 1, "▁a": 2}, [("▁", "a")], byte_fallback=True)
    save(pieces, tmp_path / "hf")
    with pytest.raises(ConvertError, match="byte token <0x00>"):
        convert(tmp_path / "hf", tmp_path / "model.gguf")
