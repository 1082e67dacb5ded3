"""The closed-vocabulary tokenizer: byte-level BPE in which every word of the language is exactly one token.

The kind is GPT-2's byte-level BPE with SmolLM's pre-tokenizer (digits one by one), which ``tokenizers`` runs from
``tokenizer.json`` and libllama from a GGUF (``tokenizer.ggml.model = gpt2``, ``tokenizer.ggml.pre = smollm``).

Two vocabulary forms exist for a word: bare (``Tom``, which opens a text) and with its leading space (``ĠTom``). First
the merges that build the bare words are learnt by BPE over the word list alone; then, ranked behind all of them, comes
one merge ``Ġ`` + word for each word. So no intermediate piece ever starts with a space, and the rule for a closed
vocabulary is exact: a word is known if and only if ``" " + word`` is one token.

A text's numbers are read digit by digit, but a readout says its value in one token: 10 to the largest value are tokens
that no merge builds, so no text is ever cut into them. So the state at the end of a block has to hold the whole value,
not only its first digit, and a later block finds it there.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property

from train.lexicon import COLOURS, ITEMS, NAMES, PAST, VERBS, words
from train.problems import MAX_VALUE

END_OF_TEXT, BEGIN, MEMORY, END = "<|endoftext|>", "<|rim_begin|>", "<|rim_memory|>", "<|rim_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, BEGIN, MEMORY, END)
SPACE = "Ġ"  # the byte-level alphabet's character for a space

_PIECES = re.compile(r" ?[A-Za-z]+| (?=\d)|\d|[.,?]")


def build_json() -> str:
    """The contents of ``tokenizer.json``; needs the package ``tokenizers``. The same word list gives the same text.

    Raises ValueError if a word did not become one token.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer

    learner = Tokenizer(BPE())
    learner.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=True)
    learner.train_from_iterator(
        words(),
        BpeTrainer(
            vocab_size=1 << 20,
            min_frequency=1,
            initial_alphabet=sorted(ByteLevel.alphabet()),
            special_tokens=list(SPECIAL_TOKENS),
            show_progress=False,
        ),
    )
    model = json.loads(learner.to_str())["model"]
    vocabulary: dict[str, int] = model["vocab"]
    merges = [(left, right) for left, right in model["merges"]]
    for word in words():
        if word not in vocabulary:
            raise ValueError(f"the word {word!r} did not become one token")
        vocabulary[SPACE + word] = len(vocabulary)
        merges.append((SPACE, word))
    for number in range(10, MAX_VALUE + 1):
        vocabulary[str(number)] = len(vocabulary)
    return assemble_json(vocabulary, merges)


def assemble_json(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> str:
    """``tokenizer.json`` of a byte-level BPE with SmolLM's pre-tokenizer and our special tokens."""
    from tokenizers import Tokenizer
    from tokenizers.decoders import ByteLevel as ByteLevelDecoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return str(tokenizer.to_str(pretty=True))


@dataclass(frozen=True)
class Vocabulary:
    """Token ids of one ``tokenizer.json``, and a fast encoder for texts of the closed language."""

    tokenizer_json: str

    @cached_property
    def ids(self) -> dict[str, int]:
        """Token text (in the byte-level alphabet) to id."""
        parsed = json.loads(self.tokenizer_json)
        ids: dict[str, int] = dict(parsed["model"]["vocab"])
        ids.update({token["content"]: token["id"] for token in parsed["added_tokens"]})
        return ids

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def end_of_text_id(self) -> int:
        return self.ids[END_OF_TEXT]

    @property
    def block(self) -> list[int]:
        """One memory block of two memory tokens: ``<b> <m> <m> </b>``."""
        return [self.ids[BEGIN], self.ids[MEMORY], self.ids[MEMORY], self.ids[END]]

    @cached_property
    def entities(self) -> dict[int, int]:
        """Tokens that name somebody or something in particular (people, colours, single things), in either form, to the
        form with a leading space."""
        names = (*NAMES, *COLOURS, *(one for one, _ in ITEMS))
        return {self.ids[form]: self.ids[SPACE + name] for name in names for form in (name, SPACE + name)}

    def entity(self, name: str) -> int | None:
        """The token that tells ``name`` ("Tom", "the red box") from others of its sort; None if there is none."""
        ids = (self.ids.get(SPACE + word) for word in name.split())
        return next((token for token in ids if token in self.entities), None)

    @cached_property
    def plurals(self) -> dict[int, int]:
        """Tokens of several things, in either form, to the single thing's form with a leading space."""
        return {self.ids[form]: self.ids[SPACE + one] for one, many in ITEMS for form in (many, SPACE + many)}

    @cached_property
    def verbs(self) -> frozenset[int]:
        """Tokens of the verbs that follow the subject of a fact, with their leading space."""
        return frozenset(self.ids[SPACE + verb] for verb in (*PAST, *PAST.values(), *VERBS))

    def encode(self, text: str) -> list[int]:
        """Ids of a text of the closed language, equal to the full tokenizer's. Raises KeyError for an unknown word."""
        return [self.ids[piece.replace(" ", SPACE)] for piece in _PIECES.findall(text)]

    def starts(self, text: str) -> list[int]:
        """For each token of a text of the closed language, the character at which it starts."""
        return [piece.start() for piece in _PIECES.finditer(text)]

    def value(self, number: int) -> list[int]:
        """A readout's tokens for a value in 0..MAX_VALUE: one token, then end of text. Raises KeyError for others."""
        return [self.ids[str(number)], self.end_of_text_id]

    def is_known(self, word: str) -> bool:
        """Whether ``word`` belongs to the training vocabulary."""
        return SPACE + word in self.ids
