"""What the package hands back: plain frozen dataclasses, every number with its unit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from rim_edge.arrays import FloatArray

#: why an answer ended: end token or stop string, ``max_tokens``, no room left in the context, ``cancel()``
Finish = Literal["stop", "length", "context", "cancelled"]
Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class ModelInfo:
    """What a loaded model is.

    Attributes:
        path: the file it came from.
        architecture: name that the file gives, ``llama``, ``qwen3``, ...
        description: one line of the library underneath: architecture, size, weight type.
        n_params: number of parameters.
        size_bytes: bytes of all weights.
        n_vocab, n_embd, n_layer: tokens, width, layers.
        n_ctx_train: positions that the model was trained for.
    """

    path: str
    architecture: str
    description: str
    n_params: int
    size_bytes: int
    n_vocab: int
    n_embd: int
    n_layer: int
    n_ctx_train: int


@dataclass(frozen=True, eq=False)
class Readout:
    """What the model would answer after memory block ``block``.

    Attributes:
        block: 1..depth; 0 for a direct answer, read at the prompt's last token.
        top_token, top_id: most probable next token, its text and its id (never a memory token).
        probability: of that token, full softmax, 0..1.
        entropy: of the next token, nats.
        probe: the probe's probability that this readout is correct, 0..1; None where the model has no probe.
        text: the whole answer of this readout, where it was decoded, else None.
        value: group 1 of ``rim.answer_pattern`` in that text, else None.
        confidence: mean log-probability of the answer's tokens (nats, <= 0), where it was decoded, else None.
        hidden: ``[n_embd] float32`` after the final norm at the block's end token, where asked for, else None.
        logits: ``[n_vocab] float32``, raw, where asked for, else None.
    """

    block: int
    top_token: str
    top_id: int
    probability: float
    entropy: float
    probe: float | None = None
    text: str | None = None
    value: str | None = None
    confidence: float | None = None
    hidden: FloatArray | None = None
    logits: FloatArray | None = None

    def to_dict(self) -> dict[str, Any]:
        """Everything but the arrays, ready for JSON."""
        skip = ("hidden", "logits")
        return {name: value for name, value in vars(self).items() if name not in skip}


@dataclass(frozen=True)
class Timings:
    """Wall times of one answer.

    Attributes:
        ttft_ms: from the call to the first text of the chosen answer. ``vote`` and ``confidence`` choose only after all
            readouts are decoded, and so pay for them here. In ``ask_many``: until the batch's readouts were there.
        total_ms: from the call to the end of the answer; in ``ask_many`` of the whole batch.
        prefill_ms: prompt and memory blocks, all passes.
        decode_ms: decoding the answer(s).
        tokens_per_s: answer tokens per second of ``decode_ms``; 0 where nothing was decoded.
    """

    ttft_ms: float
    total_ms: float
    prefill_ms: float
    decode_ms: float
    tokens_per_s: float


@dataclass(frozen=True)
class TokenCounts:
    """Tokens of one answer.

    Attributes:
        prompt: visible text, template included.
        reused: of these, found in the cache.
        evaluated: of these, run through the model now.
        slots: positions of memory blocks, ``depth * (M + 2)``.
        prefix: answer-prefix tokens, over all readouts.
        answer: tokens of the chosen answer, end token excluded.
    """

    prompt: int
    reused: int
    evaluated: int
    slots: int
    prefix: int
    answer: int


@dataclass(frozen=True, eq=False)
class Answer:
    """One answer and how it came about.

    Attributes:
        text: the answer.
        value: group 1 of ``rim.answer_pattern`` in it, or None.
        depth: memory blocks actually run; 0 is a direct answer.
        blocks: what was asked for: a number or ``"auto"``.
        select: how the readout was chosen: ``final``, ``vote``, ``confidence`` or ``probe``.
        readout: block whose readout is the answer; 0 for a direct answer.
        readouts: one per block, in order (one with ``block == 0`` for a direct answer).
        timings, tokens: times and counts.
        finish: ``stop``, ``length``, ``context`` or ``cancelled``.
        notices: remarks for the user, such as words that a closed vocabulary does not know.
    """

    text: str
    value: str | None
    depth: int
    blocks: int | Literal["auto"]
    select: str
    readout: int
    readouts: tuple[Readout, ...]
    timings: Timings
    tokens: TokenCounts
    finish: Finish
    notices: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """Everything but the arrays, ready for JSON: the object that ``rim-edge ask --json`` prints."""
        return {
            "text": self.text,
            "value": self.value,
            "depth": self.depth,
            "blocks": self.blocks,
            "select": self.select,
            "readout": self.readout,
            "readouts": [readout.to_dict() for readout in self.readouts],
            "timings": asdict(self.timings),
            "tokens": asdict(self.tokens),
            "finish": self.finish,
            "notices": list(self.notices),
        }
