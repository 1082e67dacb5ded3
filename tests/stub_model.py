"""A model that answers from a script: the commands' whole output can be compared, times included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from rim_edge.errors import CancelledError, ContextFullError
from rim_edge.options import check
from rim_edge.results import Answer, Message, ModelInfo, Readout, Timings, TokenCounts
from rim_edge.spec import RimSpec

SPEC = RimSpec(begin_id=1, memory_id=2, end_id=3, block_count=2, max_block_count=2, answer_pattern=r"(-?\d+)")
INFO = ModelInfo("stub.gguf", "llama", "llama 1M F32", 1_000_000, 4_000_000, 256, 16, 2, 512)


def answer(text: str = "42", **changes: Any) -> Answer:
    """An answer of two blocks in 12 ms."""
    readouts = (Readout(1, " 4", 7, 0.5, 1.25), Readout(2, " 4", 7, 0.75, 0.5, text=text, value="42", confidence=-0.1))
    timings = Timings(ttft_ms=12.04, total_ms=14.0, prefill_ms=11.5, decode_ms=2.0, tokens_per_s=85.4)
    tokens = TokenCounts(prompt=9, reused=0, evaluated=9, slots=8, prefix=0, answer=3)
    made = Answer(text, "42", 2, 2, "final", 2, readouts, timings, tokens, "stop")
    return replace(made, **changes)


class StubModel:
    """Takes the place of ``rim_edge.Model``: ``replies`` maps questions to answers, or to an exception to raise."""

    def __init__(self, replies: dict[str, Answer | Exception] | None = None, spec: RimSpec | None = SPEC) -> None:
        self.replies = replies or {}
        self.spec = spec
        self.info = INFO
        self.n_ctx = 512
        self.notices: tuple[str, ...] = (
            () if spec else ("no memory-slot metadata (rim.*): this model answers directly",)
        )
        self.asked: list[dict[str, Any]] = []
        self.closed = False

    def reply(self, question: str) -> Answer:
        found = self.replies.get(question, answer())
        if isinstance(found, Exception):
            raise found
        return found

    def ask(self, question: str, *, on_text: Callable[[str], None] | None = None, **options: Any) -> Answer:
        check(options, self.spec)
        self.asked.append({"question": question, **options})
        found = self.reply(question)
        if on_text is not None:
            for piece in pieces(found.text):
                on_text(piece)
        return found

    def chat(self, system: str | None = None) -> StubChat:
        return StubChat(self, system)

    def cancel(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> StubModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class StubChat:
    """Takes the place of ``rim_edge.Chat``; more than ``room`` turns do not fit."""

    room = 2

    def __init__(self, model: StubModel, system: str | None) -> None:
        self._model = model
        self._messages: list[Message] = []
        self.system = system
        self.last: Answer | None = None

    @property
    def messages(self) -> list[Message]:
        return list(self._messages)

    @property
    def turns(self) -> int:
        return len(self._messages) // 2

    def stream(self, text: str, **options: Any) -> Iterator[str]:
        check(options, self._model.spec)
        if self.turns >= self.room:
            raise ContextFullError("the conversation does not fit", turns=1)
        found = self._model.reply(text)
        return self._stream(text, found)

    def _stream(self, text: str, found: Answer) -> Iterator[str]:
        yield from pieces(found.text)
        self._messages += [Message("user", text), Message("assistant", found.text)]
        self.last = found

    def stream_again(self, **options: Any) -> Iterator[str]:
        question = self._messages[-2].content
        self._messages = self._messages[:-2]
        return self.stream(question, **options)

    def prefill(self, text: str) -> None:
        raise CancelledError("cancelled")

    def cancel(self) -> None:
        pass

    def reset(self) -> None:
        self._messages, self.last = [], None

    def drop_oldest(self, n: int = 1) -> int:
        dropped = min(n, self.turns)
        self._messages = self._messages[2 * dropped :]
        return dropped

    def __enter__(self) -> StubChat:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def pieces(text: str) -> list[str]:
    """``text`` in pieces of three characters."""
    return [text[i : i + 3] for i in range(0, len(text), 3)]
