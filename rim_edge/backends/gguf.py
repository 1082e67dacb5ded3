"""GGUF models on CPU, Metal or CUDA: the native latent loop over libllama behind the back-end protocol."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rim_edge import _native
from rim_edge.arrays import FloatArray
from rim_edge.backends.base import (
    Decoded,
    LoadOptions,
    OnText,
    PassCounts,
    PassProgress,
    ReadoutState,
    Sampling,
)
from rim_edge.errors import OptionError, SpecError, UnsupportedError
from rim_edge.results import ModelInfo
from rim_edge.spec import RimSpec

CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
FLASH_ATTENTION = ("auto", "on", "off")
_RANDOM_SEED = 0xFFFFFFFF  # LLAMA_DEFAULT_SEED
_UBATCH = 512


class GgufTokenizer:
    """The vocabulary of a GGUF model."""

    def __init__(self, model: _native.Model, spec: RimSpec | None) -> None:
        self._model = model
        self.chat_template: str | None = model.chat_template or None
        self.bos_id: int = model.bos_id
        self.eos_id: int = model.eos_id
        self.add_bos: bool = model.add_bos and model.bos_id >= 0
        ids = {*model.control_ids, *(spec.memory_ids if spec else ())}
        self.control_texts: Mapping[str, int] = {self.token_text(token): token for token in sorted(ids)}

    def tokenize(self, text: str, parse_special: bool = False) -> list[int]:
        """Tokens of ``text`` as it stands, without BOS or EOS."""
        return self._model.tokenize(text, parse_special)

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Text of ``tokens``; control tokens give nothing, broken UTF-8 gives U+FFFD."""
        return self._model.detokenize(list(tokens)).decode("utf-8", "replace")

    def token_text(self, token: int) -> str:
        """What ``token`` looks like: its text, or for a control token its entry in the vocabulary."""
        piece = self._model.token_piece(token) or self._model.token_text(token)
        return piece.decode("utf-8", "replace")


class GgufSession:
    """One native context."""

    def __init__(self, session: _native.Session) -> None:
        self._session = session

    @property
    def counts(self) -> PassCounts:
        return self._session.counts

    def cached(self, lane: int = 0) -> int:
        return self._session.cached(lane)

    def prefill(self, tokens: Sequence[int], lane: int = 0, progress: PassProgress | None = None) -> None:
        self._session.prefill(tokens, lane, progress)

    def think(
        self,
        prompts: Sequence[Sequence[int]],
        depth: int,
        *,
        hidden: bool = False,
        logits: bool = False,
        progress: PassProgress | None = None,
        all_readouts: bool = True,
    ) -> Sequence[Sequence[ReadoutState]]:
        """See the protocol; without ``all_readouts`` only the last block is read out."""
        return self._session.think(
            prompts, depth, all_readouts=all_readouts, hidden=hidden, logits=logits, progress=progress
        )

    def extend(self, depth: int, *, hidden: bool = False, logits: bool = False) -> Sequence[Sequence[ReadoutState]]:
        return self._session.extend(depth, hidden=hidden, logits=logits)

    def decode(
        self,
        targets: Sequence[tuple[int, int]],
        sampling: Sampling,
        max_tokens: int,
        stop: Sequence[str] = (),
        on_text: OnText | None = None,
    ) -> Sequence[Decoded]:
        native = _native.Sampling(
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            min_p=sampling.min_p,
            seed=_RANDOM_SEED if sampling.seed is None else sampling.seed,
            repeat_penalty=sampling.repeat_penalty,
            ignore_end=sampling.ignore_end,
        )
        return self._session.decode(targets, native, max_tokens, stop, on_text)

    def advance(self, targets: Sequence[tuple[int, int]], tokens: Sequence[int]) -> Sequence[ReadoutState]:
        """Give each readout one answer token; what the model would say next, with logits.

        Raises UnsupportedError for models that keep one state per sequence: see ``GgufBackend.plain_logits``.
        """
        return self._session.advance(targets, tokens)

    def reset(self) -> None:
        self._session.reset()

    def cancel(self) -> None:
        self._session.cancel()

    def clear_cancel(self) -> None:
        self._session.clear_cancel()

    def close(self) -> None:
        self._session.close()


class GgufBackend:
    """A GGUF model. Head and memory-slot metadata are checked before libllama loads the weights.

    Raises:
        ModelFileError: damaged, or of a kind that libllama does not run.
        SpecError: wrong memory-slot metadata.
        OptionError: an unknown cache type or flash-attention mode.
        CancelledError: the progress callback returned False.
    """

    def __init__(self, path: Path, options: LoadOptions) -> None:
        if options.cache_type not in CACHE_TYPES:
            raise OptionError(f"cache_type is {options.cache_type!r}, expected one of {', '.join(CACHE_TYPES)}")
        if options.flash_attention not in FLASH_ATTENTION:
            raise OptionError(
                f"flash_attention is {options.flash_attention!r}, expected one of {', '.join(FLASH_ATTENTION)}"
            )
        self._options = options
        self.spec, self.n_positions = read_head(path)
        model = _native.Model(
            os.fspath(path),
            n_gpu_layers=options.n_gpu_layers,
            use_mmap=options.use_mmap,
            progress=options.progress,
        )
        self._model = model
        if not model.has_decoder or model.has_encoder:
            model.close()
            raise UnsupportedError(f"{path}: {model.architecture} has an encoder, RiM Edge runs decoder-only models")
        self.info = ModelInfo(
            path=os.fspath(path),
            architecture=model.architecture,
            description=model.description,
            n_params=model.n_params,
            size_bytes=model.size_bytes,
            n_vocab=model.n_vocab,
            n_embd=model.n_embd,
            n_layer=model.n_layer,
            n_ctx_train=model.n_ctx_train,
        )
        self.coupled_reason: str = "" if model.coupled else model.coupled_reason
        self.tokenizer = GgufTokenizer(model, self.spec)

    @cached_property
    def prefix(self) -> Sequence[int]:
        """Tokens of ``rim.answer_prefix``; control texts in it are meant, it comes from the model's maker."""
        text = self.spec.answer_prefix if self.spec and not self.coupled_reason else None
        return tuple(self.tokenizer.tokenize(text, parse_special=True)) if text else ()

    @property
    def on_gpu(self) -> bool:
        """Whether libllama has a GPU and was asked to use it."""
        return self._options.n_gpu_layers != 0 and any(
            not name.startswith(("CPU", "BLAS")) for name in self._model.devices
        )

    def with_threads(self, n_threads: int) -> GgufBackend:
        """The same weights, its sessions computing with ``n_threads`` threads. Closing either closes both."""
        other = copy.copy(self)
        other._options = replace(self._options, n_threads=n_threads)
        return other

    def open(self, n_cells: int, n_lanes: int, *, blocks: bool) -> GgufSession:
        layout = None
        if blocks and self.spec is not None:
            layout = _native.Blocks(
                begin_id=self.spec.begin_id,
                memory_id=self.spec.memory_id,
                end_id=self.spec.end_id,
                size=self.spec.block_size,
                count=self.spec.max_block_count,
                prefix=list(self.prefix),
            )
        options = _native.SessionOptions(
            n_ctx=n_cells,
            n_batch=self._options.n_batch,
            n_ubatch=min(_UBATCH, self._options.n_batch),
            n_lanes=n_lanes,
            n_threads=self._options.n_threads or 0,
            cache_type=self._options.cache_type,
            flash_attention=self._options.flash_attention,
        )
        return GgufSession(_native.Session(self._model, layout, options))

    def plain_logits(self, tokens: Sequence[int], rows: Sequence[int]) -> FloatArray:
        """``[len(rows), n_vocab] float32``: logits at ``rows`` of a run of ``tokens`` in a context of its own."""
        options = _native.SessionOptions(
            n_ctx=len(tokens),
            n_threads=self._options.n_threads or 0,
            cache_type=self._options.cache_type,
            flash_attention=self._options.flash_attention,
        )
        return _native.batch_logits(self._model, tokens, options, rows)

    def close(self) -> None:
        self._model.close()


def read_head(path: Path) -> tuple[RimSpec | None, int | None]:
    """The memory-slot metadata, checked against the vocabulary, and the positions of a learned position embedding.

    Raises:
        ModelFileError: not a GGUF file, or damaged.
        SpecError: wrong memory-slot metadata.
    """
    file = _native.GgufFile(os.fspath(path))
    try:
        spec = _checked_spec(file)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None
    positions = next((tensor.shape for tensor in file.tensors if tensor.name == "position_embd.weight"), None)
    return spec, positions[-1] if positions else None


def _checked_spec(file: _native.GgufFile) -> RimSpec | None:
    metadata: Mapping[str, Any] = file.metadata
    n_embd = metadata.get(f"{metadata.get('general.architecture')}.embedding_length")
    tokens = metadata.get("tokenizer.ggml.tokens")
    if tokens is None or not isinstance(n_embd, int):
        return None  # an unknown architecture or no vocabulary: libllama refuses the file and says why
    spec = RimSpec.from_gguf(metadata, n_embd)
    if spec is not None:
        spec.check_model(len(tokens), n_embd)
        types = file.numbers_at("tokenizer.ggml.token_type", len(tokens), spec.memory_ids)
        for token, kind in zip(spec.memory_ids, types or (), strict=False):
            if kind != 3:  # LLAMA_TOKEN_TYPE_CONTROL
                raise SpecError(f"memory token {token} is not of the type CONTROL: convert the model again")
    return spec
