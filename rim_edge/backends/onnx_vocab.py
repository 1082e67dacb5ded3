"""The vocabulary of an ONNX folder: ``tokenizer.json`` through the ``tokenizers`` library, behind the protocol.

What libllama does with the same vocabulary is done here too: texts of control tokens inside a text stay text, pieces of
tokens are bytes, and the tokens that end an answer are found by their texts as well as by their ids.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rim_edge.errors import ModelFileError
from rim_edge.spec import RimSpec

#: texts of tokens that end an answer (libllama: ``special_eog_ids``)
END_TEXTS = frozenset(
    {
        *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>"),
        *("<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<eos>"),
        *("<end_of_utterance>", "<turn|>", "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>"),
        *(
            "<|repo_name|>",
            "<fim-repo>",
            "<REPO>",
            "<reponame>",
            "<|file_sep|>",
            "<\uff5cend\u2581of\u2581sentence\uff5c>",
        ),
    }
)
_BYTE_TOKENS = {f"<0x{byte:02X}>": bytes([byte]) for byte in range(256)}


class OnnxTokenizer:
    """The tokenizer of one folder.

    Args:
        folder: holds ``tokenizer.json``.
        config: ``tokenizer_config.json``, or an empty mapping.
        bos_id: token that begins a text, -1 where there is none.
        end_ids: tokens that end an answer, the usual one first.
        spec: memory-slot metadata.
        n_rows: rows of the output head, which may be more than tokens.

    Attributes:
        kind: ``bpe`` (byte-level) or ``spm`` (SentencePiece).
        n_tokens: one past the largest id.
        end_ids: all tokens that end an answer.
        banned: control tokens, memory tokens included, and rows without a token: none is ever part of an answer.

    Raises:
        ModelFileError: ``tokenizer.json`` is missing, damaged, or of a kind that is not supported.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        bos_id: int,
        end_ids: Sequence[int],
        spec: RimSpec | None,
        n_rows: int,
    ) -> None:
        import tokenizers

        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelFileError(f"{path}: is missing: copy or convert the model again")
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
            decoder = json.loads(self._tokenizer.decoder.__getstate__()) if self._tokenizer.decoder else {}
        except Exception as error:  # the library raises bare exceptions
            raise ModelFileError(f"{path}: cannot be read ({' '.join(str(error).split())}): convert again") from None
        self._lock = threading.Lock()  # held while the library's switch for control texts is set
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._byte_level = "ByteLevel" in _types(decoder)
        if not self._byte_level and not {"ByteFallback", "Metaspace", "Replace"} & _types(decoder):
            raise ModelFileError(f"{path}: is neither a byte-level nor a SentencePiece vocabulary, which are supported")
        self.kind = "bpe" if self._byte_level else "spm"
        self._bytes = {letter: bytes([byte]) for byte, letter in enumerate(_byte_letters())}
        self._added: dict[int, Any] = self._tokenizer.get_added_tokens_decoder()
        vocabulary: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        self.n_tokens = max(vocabulary.values(), default=-1) + 1
        found = {vocabulary[text] for text in END_TEXTS if text in vocabulary}
        self.end_ids = frozenset({*found, *end_ids})
        controls = {token for token, added in self._added.items() if added.special} | found
        controls |= set(spec.memory_ids) if spec else set()
        self._controls = frozenset(token for token in controls if token < self.n_tokens)
        empty = set(range(n_rows)) - set(vocabulary.values())
        self.banned = sorted((self._controls - self.end_ids) | set(spec.memory_ids if spec else ()) | empty)
        self.bos_id = bos_id
        self.eos_id = end_ids[0] if end_ids else -1
        self.add_bos = bos_id >= 0 and self._adds_bos(config)
        self.chat_template = _chat_template(folder, config)
        self.control_texts: Mapping[str, int] = {self.token_text(token): token for token in sorted(self._controls)}

    def tokenize(self, text: str, parse_special: bool = False) -> list[int]:
        """Tokens of ``text`` as it stands, without BOS or EOS."""
        with self._lock:
            self._tokenizer.encode_special_tokens = not parse_special
            return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Text of ``tokens``; control tokens give nothing, broken UTF-8 gives U+FFFD."""
        return b"".join(self.token_bytes(token) for token in tokens).decode("utf-8", "replace")

    def token_text(self, token: int) -> str:
        """What ``token`` looks like: its text, or for a control token its entry in the vocabulary."""
        return self.token_bytes(token).decode("utf-8", "replace") or self.entry(token) or f"[PAD{token}]"

    def token_bytes(self, token: int) -> bytes:
        """The bytes that ``token`` stands for; empty for control tokens and for rows without a token."""
        text = self.entry(token)
        if text is None or token in self._controls:
            return b""
        if token in self._added:
            return text.encode("utf-8", "replace")
        if self._byte_level:
            return b"".join(self._bytes.get(letter) or letter.encode("utf-8", "replace") for letter in text)
        return _BYTE_TOKENS.get(text) or text.replace("▁", " ").encode("utf-8", "replace")

    def entry(self, token: int) -> str | None:
        """The vocabulary's entry for ``token``; None where there is none."""
        found: str | None = self._tokenizer.id_to_token(token) if token >= 0 else None
        return found

    def is_control(self, token: int) -> bool:
        """Whether the folder itself calls ``token`` special, or has it beside its ordinary vocabulary."""
        return token in self._added

    def _adds_bos(self, config: Mapping[str, Any]) -> bool:
        stated = config.get("add_bos_token")
        if isinstance(stated, bool):
            return stated
        with self._lock:
            self._tokenizer.encode_special_tokens = False
            return list(self._tokenizer.encode("").ids[:1]) == [self.bos_id]


def _types(decoder: Any) -> set[str]:
    """The types of a decoder and of its parts."""
    if not isinstance(decoder, dict):
        return set()
    parts: Iterable[Any] = decoder.get("decoders") or ()
    return {str(decoder.get("type"))}.union(*(_types(part) for part in parts))


def _chat_template(folder: Path, config: Mapping[str, Any]) -> str | None:
    """``chat_template.jinja``, else the one in ``tokenizer_config.json``, of several the default one."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        try:
            return file.read_text(encoding="utf-8") or None
        except (OSError, UnicodeDecodeError) as error:
            raise ModelFileError(f"{file}: cannot be read ({error})") from None
    template = config.get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    return template if isinstance(template, str) and template else None


def _byte_letters() -> list[str]:
    """The printable character that stands for each byte in a byte-level vocabulary (GPT-2's table)."""
    plain = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]
