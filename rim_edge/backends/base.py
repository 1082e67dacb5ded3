"""What a back end offers: weights with a tokenizer (``Backend``) and contexts that run them (``BackendSession``).

The rest of the package sees only these protocols. Results are read-only protocols too, so that a back end may hand out
its own objects without copying.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from rim_edge.arrays import FloatArray
from rim_edge.results import ModelInfo
from rim_edge.spec import RimSpec

LoadProgress = Callable[[float], "bool | None"]
PassProgress = Callable[[int, int], "bool | None"]
OnText = Callable[[int, str], "bool | None"]


@dataclass(frozen=True)
class LoadOptions:
    """How to load a model; the fields are explained at :func:`rim_edge.load`."""

    n_threads: int | None = None
    n_gpu_layers: int = -1
    cache_type: str = "f16"
    flash_attention: str = "auto"
    use_mmap: bool = True
    n_batch: int = 2048
    progress: LoadProgress | None = None


@dataclass(frozen=True)
class Sampling:
    """How answer tokens are chosen; the fields are explained at :class:`rim_edge.options.Options`.

    Attributes:
        ignore_end: an end-of-generation token ends nothing: answers of a given length, to measure.
    """

    temperature: float = 0.0
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    seed: int | None = None
    repeat_penalty: float = 1.0
    ignore_end: bool = False


class ReadoutState(Protocol):
    """One readout of one lane: see :class:`rim_edge.results.Readout`; ``lane`` counts the questions side by side."""

    @property
    def lane(self) -> int: ...
    @property
    def block(self) -> int: ...
    @property
    def token(self) -> int: ...
    @property
    def probability(self) -> float: ...
    @property
    def entropy(self) -> float: ...
    @property
    def hidden(self) -> FloatArray | None: ...
    @property
    def logits(self) -> FloatArray | None: ...


class Decoded(Protocol):
    """One readout's answer: tokens without the end token, log-probabilities with it, text cut before a stop string."""

    @property
    def lane(self) -> int: ...
    @property
    def block(self) -> int: ...
    @property
    def tokens(self) -> Sequence[int]: ...
    @property
    def logprobs(self) -> Sequence[float]: ...
    @property
    def seconds(self) -> Sequence[float]:
        """From the call of ``decode`` to each sampled token, the end-of-generation token included."""

    @property
    def text(self) -> str: ...
    @property
    def finish(self) -> str: ...


class PassCounts(Protocol):
    """Tokens that the last prefill, think or extend found in the cache or ran."""

    @property
    def reused(self) -> int: ...
    @property
    def text(self) -> int: ...
    @property
    def slots(self) -> int: ...
    @property
    def prefix(self) -> int: ...


class Tokenizer(Protocol):
    """Text to tokens and back. ``control_texts``: texts of control tokens, memory tokens included, to their ids."""

    @property
    def chat_template(self) -> str | None: ...
    @property
    def control_texts(self) -> Mapping[str, int]: ...
    @property
    def bos_id(self) -> int: ...
    @property
    def eos_id(self) -> int: ...
    @property
    def add_bos(self) -> bool: ...
    def tokenize(self, text: str, parse_special: bool = False) -> list[int]: ...
    def detokenize(self, tokens: Sequence[int]) -> str: ...
    def token_text(self, token: int) -> str: ...


class BackendSession(Protocol):
    """One context. It keeps visible text; blocks and answers run on top and are removed afterwards.

    Any call may raise CancelledError after :meth:`cancel`, which any thread may call at any time and which holds until
    :meth:`clear_cancel`; :meth:`decode` then returns what it has, ``finish == "cancelled"``.
    """

    @property
    def counts(self) -> PassCounts: ...
    def cached(self, lane: int = 0) -> int: ...
    def prefill(self, tokens: Sequence[int], lane: int = 0, progress: PassProgress | None = None) -> None: ...
    def think(
        self,
        prompts: Sequence[Sequence[int]],
        depth: int,
        *,
        hidden: bool = False,
        logits: bool = False,
        progress: PassProgress | None = None,
    ) -> Sequence[Sequence[ReadoutState]]:
        """Evaluate each lane's text and blocks 1..depth; per lane, the readouts (one with block 0 for depth 0)."""

    def extend(self, depth: int, *, hidden: bool = False, logits: bool = False) -> Sequence[Sequence[ReadoutState]]:
        """Run further blocks up to ``depth`` on top of the last think; per lane, the new readouts."""

    def decode(
        self,
        targets: Sequence[tuple[int, int]],
        sampling: Sampling,
        max_tokens: int,
        stop: Sequence[str] = (),
        on_text: OnText | None = None,
    ) -> Sequence[Decoded]:
        """Decode the readouts ``targets`` = (lane, block) at once; ``on_text`` gets the target's index and a piece."""

    def reset(self) -> None: ...
    def cancel(self) -> None: ...
    def clear_cancel(self) -> None: ...
    def close(self) -> None: ...


class Backend(Protocol):
    """A loaded model, shareable between threads and sessions."""

    @property
    def info(self) -> ModelInfo: ...
    @property
    def spec(self) -> RimSpec | None: ...
    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def coupled_reason(self) -> str:
        """Why the model cannot run memory blocks; empty where it can."""

    @property
    def n_positions(self) -> int | None:
        """Positions that the model has at all (learned position embeddings); None where there is no hard limit."""

    @property
    def prefix(self) -> Sequence[int]:
        """Tokens of the answer prefix, run by the session before each readout, the direct one too; may be empty."""

    def open(self, n_cells: int, n_lanes: int, *, blocks: bool) -> BackendSession:
        """A context of ``n_cells`` tokens in all, for ``n_lanes`` questions side by side, with or without blocks."""

    def close(self) -> None:
        """Drop the weights; their memory is freed once the last session is closed."""
