"""Small tokenizers of every kind that models of these families have, made by the library `tokenizers` itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")
MEMORY_TEXTS = ["<|rim_begin|>", "<|rim_memory|>", "<|rim_end|>"]
CORPUS = [
    "Tom has 5 apples. He buys 3 more. How many apples does Tom have now?",
    "The quick brown fox jumps over the lazy dog; they don't, I'll, we've.",
    "def add(a, b):\n    return a + b  # sums\n\n<p>Hello <b>world</b></p>",
    "naïve café über Straße, Привет мир, 你好世界, こんにちは, 👋🌍 1234567890",
    "      indented\n\n\n\ttabs and   spaces  ",
] * 4


def byte_level(kind: str, extra: list[str] | None = None, n_vocab: int = 420) -> Tokenizer:
    """A byte-level BPE tokenizer with the pre-tokenizer of ``gpt2``, ``smollm``, ``llama3`` or ``qwen2``."""
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind in ("gpt2", "smollm"))
    before: list[Any] = {
        "gpt2": [],
        "smollm": [pre_tokenizers.Digits(individual_digits=True)],
        "llama3": [pre_tokenizers.Split(Regex(LLAMA3), "isolated")],
        "qwen2": [pre_tokenizers.Split(Regex(QWEN2), "isolated")],
    }[kind]
    tokenizer = Tokenizer(BPE(ignore_merges=kind == "llama3"))
    if kind == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*before, level]) if before else level
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        CORPUS, BpeTrainer(vocab_size=n_vocab, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens(["<|endoftext|>", *(extra or [])])
    if kind == "llama3":
        begin = tokenizer.token_to_id("<|endoftext|>")
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", begin)]
        )
    return tokenizer


def sentencepiece(extra: list[str] | None = None, n_vocab: int = 480, listed_only: bool = False) -> Tokenizer:
    """A tokenizer as Gemma's: spaces are ``▁``, unknown characters become bytes, merges over texts.

    ``listed_only``: with the trainer's own merges within lines, instead of every pair that forms a token.
    """
    learner = Tokenizer(BPE())
    learner.normalizer = normalizers.Replace(" ", "▁")
    lines = [line for text in CORPUS for line in text.split("\n")] if listed_only else CORPUS
    learner.train_from_iterator(lines, BpeTrainer(vocab_size=n_vocab - 260, show_progress=False))
    learnt = json.loads(learner.to_str())["model"]
    texts = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    texts += sorted(learnt["vocab"], key=learnt["vocab"].__getitem__)
    vocabulary = {text: index for index, text in enumerate(texts)}
    merges = [tuple(pair) for pair in learnt["merges"]]
    if not listed_only:
        formed = list(dict.fromkeys(left + right for left, right in merges))
        merges = [
            (token[:cut], token[cut:])
            for token in formed
            for cut in range(1, len(token))
            if token[:cut] in vocabulary and token[cut:] in vocabulary
        ]
    tokenizer = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(["<pad>", "<eos>", "<bos>", "<unk>", *(extra or [])])
    tokenizer.add_tokens([AddedToken("<table>", normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path, **config: Any) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **config}))
