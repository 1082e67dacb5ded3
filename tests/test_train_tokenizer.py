"""The bundled model's vocabulary: one token per word, and any other text in pieces."""

from __future__ import annotations

from pathlib import Path

import pytest

import rim_edge
from train.data import generate
from train.lexicon import words

MODEL = Path(rim_edge.__file__).parent / "models" / "rim-tiny.gguf"
FOREIGN = (
    "Zebra xylophone 123 foo's, it's  two  spaces",
    "tab\tnew\n\nline",
    "ünïcödé 日本語 12.5$ !?",
    "tom HAS 5Apples",
)


@pytest.fixture(scope="module")
def llama() -> object:
    import llama_cpp

    return llama_cpp.Llama(str(MODEL), vocab_only=True, verbose=False)


def encode(llama: object, text: str) -> list[int]:
    return llama.tokenize(text.encode(), add_bos=True, special=False)  # type: ignore[attr-defined, no-any-return]


def test_every_word_is_one_token_in_both_forms(llama: object) -> None:
    for word in words():
        assert len(encode(llama, word)) == len(encode(llama, " " + word)) == 1, word


def test_only_words_of_the_language_are_single_tokens_after_a_space(llama: object) -> None:
    known = set(words())
    for word in ("zebra", "hav", "appl", "ing", "er", "th", "bas", "ok", "ple", "ook"):
        assert word not in known
        assert len(encode(llama, " " + word)) > 1, word


def test_numbers_are_read_digit_by_digit(llama: object) -> None:
    assert len(encode(llama, "12")) == 2
    assert len(encode(llama, "120")) == 3


def test_any_text_survives(llama: object) -> None:
    for text in (*FOREIGN, *(p.question for p in generate("test", (2, 3), 30, seed=1))):
        assert llama.detokenize(encode(llama, text)).decode() == text  # type: ignore[attr-defined]
