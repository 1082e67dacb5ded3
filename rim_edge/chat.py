"""Chat: a conversation with history, streaming, cancelling, and a context that pays for new text alone."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from rim_edge import loop, transcript, vocabulary
from rim_edge._worker import CancelToken, Emit, Task, in_thread
from rim_edge.backends.base import Backend
from rim_edge.context import Context
from rim_edge.errors import BusyError, ClosedError, ContextFullError, OptionError
from rim_edge.options import Options, Request, check
from rim_edge.prompt import Prompt, PromptBuilder
from rim_edge.results import Answer, Message, TokenCounts
from rim_edge.slot import Slot
from rim_edge.stream import Stream

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

_ANSWER_ROOM = 256  # tokens that dropping old turns makes free for the next answer


@dataclass
class _Turn:
    """One question at work: the history that it is asked in, and what to go back to if it is taken back."""

    base: list[Message]
    question: str
    before: list[Message]
    last: Answer | None
    answer: Answer | None = None


class Chat:
    """A conversation. Made by :meth:`rim_edge.Model.chat`; a context manager, whose end is :meth:`close`.

    One call at a time: a second one raises BusyError. Only :meth:`cancel` and :meth:`close` may come from any thread at
    any time.

    What stays of a question that did not end by itself: if the answer had text, the turn is closed with the text so far
    (``finish == "cancelled"``), and the conversation goes on after it; if it had none, or an error came, the question
    is taken back and the conversation is as it was before.

    A model without a chat template but with ``rim.prompt_template`` sees the last question only; each turn stands
    alone.

    Attributes:
        last: the last answer, None before the first.
    """

    def __init__(self, backend: Backend, prompts: PromptBuilder, context: Context, defaults: Options) -> None:
        check(defaults, backend.spec, backend.coupled_reason)
        self._backend, self._prompts, self._context = backend, prompts, context
        self._defaults = defaults
        self._system = defaults.get("system") or None
        self._messages: list[Message] = []
        self._slot = Slot(backend, "rim-edge-chat")
        self._state: Literal["idle", "prefill", "answer"] = "idle"
        self._changed = threading.Condition()
        self._token: CancelToken | None = None
        self._turn: _Turn | None = None
        self._closed = False
        self.last: Answer | None = None

    # ---- asking -----------------------------------------------------------------------------------------------------

    def stream(self, text: str, **options: Unpack[Options]) -> Stream:
        """Ask, and get the answer piece by piece. Checks and the start of the work happen at this call.

        Options: :class:`rim_edge.options.Options`; those not given are the chat's. ``vote`` and ``confidence`` give one
        piece, the chosen answer. When the stream has ended, :attr:`last` is the whole answer.

        Raises:
            OptionError, UnsupportedError: an option makes no sense, or not for this model.
            ContextFullError: the conversation does not fit; ``turns`` says how many oldest turns to drop. Raised before
                any work.
            TemplateError: the model's template cannot be rendered.
            BusyError: another call is at work.
            ClosedError: after :meth:`close`.
        """
        return self._start(text, options, pieces=True)

    def ask(self, text: str, **options: Unpack[Options]) -> Answer:
        """Ask, and wait for the whole answer.

        Raises:
            CancelledError: :meth:`cancel` came before any text; else as :meth:`stream`.
        """
        return self._start(text, options, pieces=False).finish()

    def regenerate(self, **options: Unpack[Options]) -> Answer:
        """Answer the last question again in place of the last answer, which stays if that fails or gives no text.

        Raises:
            OptionError: there is no answer yet; else as :meth:`ask`.
        """
        return self._start(None, options, pieces=False).finish()

    def stream_again(self, **options: Unpack[Options]) -> Stream:
        """:meth:`regenerate` piece by piece."""
        return self._start(None, options, pieces=True)

    async def ask_async(self, text: str, **options: Unpack[Options]) -> Answer:
        """:meth:`ask` in a thread; cancelling the awaiting task stops the work."""
        token = CancelToken()
        return await in_thread(lambda: self._start(text, options, pieces=False, token=token).finish(), token)

    async def stream_async(self, text: str, **options: Unpack[Options]) -> AsyncIterator[str]:
        """:meth:`stream` for ``async for``; cancelling the task, or closing the iterator, stops the work."""
        token = CancelToken()
        stream = await in_thread(lambda: self._start(text, options, pieces=True, token=token), token)
        try:
            while (piece := await in_thread(lambda: next(stream, None), token)) is not None:
                yield piece
        finally:
            stream.close()

    def cancel(self) -> None:
        """Stop the answer or prefill at work, from any thread; nothing happens where the chat is idle."""
        token = self._token
        if token is not None:
            token.cancel()

    def prefill(self, text: str) -> TokenCounts:
        """Evaluate the conversation and the beginning of a question, while the user is still typing.

        Only tokens that are sure to stay are evaluated; a guess that turns out wrong costs nothing but the work.
        Nothing happens where the text does not fit. A question asked meanwhile waits for the end.

        Returns:
            Counts of this call: ``prompt`` tokens are now in the cache, ``reused`` of them were there, ``evaluated``
                were run.

        Raises:
            CancelledError: :meth:`cancel` came.
            BusyError: an answer is at work.
            ClosedError: after :meth:`close`.
        """
        token = CancelToken()
        self._enter("prefill", token)
        try:
            tokens = self._prompts.sure_prefix(self._conversation([*self._messages, Message("user", _text(text))]))
            if not tokens or len(tokens) >= self._context.n_ctx:
                return TokenCounts(0, 0, 0, 0, 0, 0)
            session = self._slot.session(self._context.n_ctx + self._context.block_room)

            def work(_: Emit) -> TokenCounts:
                with token.attached(session):
                    session.prefill(tokens)
                    counts = session.counts
                    return TokenCounts(len(tokens), counts.reused, counts.text, 0, 0, 0)

            return Task(self._slot.pool, work, token).result()
        finally:
            self._leave()

    # ---- history ----------------------------------------------------------------------------------------------------

    @property
    def messages(self) -> list[Message]:
        """The conversation, system prompt first where there is one; a copy."""
        return self._conversation(self._messages)

    @property
    def system(self) -> str | None:
        """The system prompt; it may be set between questions."""
        return self._system

    @system.setter
    def system(self, text: str | None) -> None:
        self._edit(lambda messages: messages)
        self._system = _text(text, "the system prompt") if text else None

    @property
    def turns(self) -> int:
        """Questions answered."""
        return len(self._messages) // 2

    def reset(self) -> None:
        """Forget the conversation; the system prompt stays."""
        self._edit(lambda _: [])
        self.last = None

    def undo(self) -> str | None:
        """Take back the last turn; returns its question, None where there is no turn."""
        before = self._edit(lambda messages: messages[:-2])
        return before[-2].content if before else None

    def drop_oldest(self, n: int = 1) -> int:
        """Forget the ``n`` oldest turns, question and answer; returns how many there were to forget."""
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise OptionError(f"n is {n!r}, expected a whole number, 0 or more")
        before = self._edit(lambda messages: messages[2 * n :])
        return min(n, len(before) // 2)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the conversation to a JSON file (:mod:`rim_edge.transcript`), atomically.

        Raises:
            OptionError: the file cannot be written.
        """
        transcript.write(path, self._messages, self._system, self._backend.info.description)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Replace the conversation, system prompt included, by a saved one.

        Raises:
            OptionError: not a saved conversation; the present one stays.
        """
        messages, system = transcript.read(path)
        self._edit(lambda _: messages)
        self._system = system
        self.last = None

    # ---- closing ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop the work and free the context's memory at once. May be called again."""
        with self._changed:
            self._closed = True
            self.cancel()
            while self._state != "idle":
                self._changed.wait()
        self._slot.close()

    @property
    def closed(self) -> bool:
        return self._closed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _start(self, text: str | None, options: Options, *, pieces: bool, token: CancelToken | None = None) -> Stream:
        """Begin an answer to ``text``, or to the last question again where it is None."""
        started = time.perf_counter()
        token = token or CancelToken()
        self._enter("answer", token)
        try:
            merged: Options = {**self._defaults, **options}
            request = check(merged, self._backend.spec, self._backend.coupled_reason)
            if "system" in options:
                raise OptionError("system belongs to the chat: give it to Model.chat")
            if text is not None:
                turn = _Turn(self._messages, _text(text), self._messages, self.last)
            elif self._messages:
                turn = _Turn(self._messages[:-2], self._messages[-2].content, self._messages, self.last)
            else:
                raise OptionError("there is no answer yet that could be given again")
            prompt, limit = self._fit(turn, request)
            session = self._slot.session(self._context.cells(request, limit))
            listen = pieces or request.on_text is not None

            def work(emit: Emit) -> Answer:
                try:
                    with token.attached(session):
                        (outcome,) = loop.run(
                            self._backend,
                            session,
                            [prompt.tokens],
                            request,
                            limit,
                            started=started,
                            on_text=(lambda piece: emit((piece, 0, 0))) if listen else None,
                            on_prefill=(lambda done, total: emit(("", done, total))) if request.on_prefill else None,
                        )
                    words = vocabulary.notices(self._backend.spec, self._backend.tokenizer, turn.question)
                    answer = outcome.answer
                    turn.answer = replace(answer, notices=(*answer.notices, *prompt.notices, *words))
                    self._close_turn(turn, turn.answer)
                    return turn.answer
                finally:
                    self._leave()

            return Stream(Task(self._slot.pool, work, token), request, lambda shown: self._cut_turn(turn, shown))
        except BaseException:
            self._leave()
            raise

    def _fit(self, turn: _Turn, request: Request) -> tuple[Prompt, int]:
        """The turn's prompt and the answer tokens it leaves room for; ContextFullError says how many turns to drop."""
        asked = Message("user", turn.question)
        prompt = self._prompts.conversation(self._conversation([*turn.base, asked]))
        try:
            return prompt, self._context.answer_limit(len(prompt.tokens), "the message")
        except ContextFullError as error:
            n_turns = 0 if self._prompts.turns_stand_alone else len(turn.base) // 2
            room = min(request.max_tokens or _ANSWER_ROOM, self._context.n_ctx // 4)
            for drop in range(1, n_turns + 1):
                rest = self._prompts.conversation(self._conversation([*turn.base[2 * drop :], asked]))
                if len(rest.tokens) + (room if drop < n_turns else 1) <= self._context.n_ctx:
                    raise ContextFullError(
                        f"the conversation takes {len(prompt.tokens)} tokens and the context holds "
                        f"{self._context.n_ctx}, answer included: "
                        f"drop the oldest {drop} of {n_turns} turns, or load with a larger n_ctx",
                        needed=error.needed,
                        available=error.available,
                        turns=drop,
                    ) from None
            raise

    def _conversation(self, messages: list[Message]) -> list[Message]:
        return [Message("system", self._system), *messages] if self._system else list(messages)

    def _close_turn(self, turn: _Turn, answer: Answer) -> None:
        with self._changed:
            self._messages = [*turn.base, Message("user", turn.question), Message("assistant", answer.text)]
            self._turn, self.last = turn, answer

    def _cut_turn(self, turn: _Turn, text: str) -> None:
        """The listener left after ``text``: that is what the turn holds, if it is still the last one."""
        with self._changed:
            if self._turn is turn and turn.answer is not None and self._state == "idle":
                if text:
                    self._close_turn(turn, replace(turn.answer, text=text, finish="cancelled"))
                else:
                    self._messages, self._turn, self.last = turn.before, None, turn.last

    def _edit(self, change: Callable[[list[Message]], list[Message]]) -> list[Message]:
        """Change the history while no answer is at work; returns it as it was before."""
        with self._changed:
            if self._closed:
                raise ClosedError("the chat is closed: open another one")
            if self._state == "answer":
                raise BusyError("an answer is at work: wait for it, close its stream, or cancel()")
            before = self._messages
            self._messages, self._turn = change(before), None
            return before

    def _enter(self, state: Literal["prefill", "answer"], token: CancelToken) -> None:
        with self._changed:
            while self._state == "prefill" and not self._closed:
                self._changed.wait()
            if self._closed:
                raise ClosedError("the chat is closed: open another one")
            if self._state == "answer":
                raise BusyError("an answer is at work: wait for it, close its stream, or cancel()")
            self._state, self._token = state, token

    def _leave(self) -> None:
        with self._changed:
            self._state, self._token = "idle", None
            self._changed.notify_all()


def _text(text: object, what: str = "the question") -> str:
    if not isinstance(text, str):
        raise OptionError(f"{what} is {type(text).__name__}, expected text")
    return text
