"""Model: loaded weights that answer single questions, one by one or many at once, and open chats."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rim_edge import loop, many, vocabulary
from rim_edge._worker import CancelToken, Emit, Task, deliver, in_thread
from rim_edge.backends import open_backend
from rim_edge.backends.base import Backend, LoadOptions
from rim_edge.chat import Chat
from rim_edge.context import Context
from rim_edge.errors import BusyError, CancelledError, ClosedError, ModelFileError, OptionError
from rim_edge.options import Options, Request, check
from rim_edge.prompt import Prompt, PromptBuilder
from rim_edge.results import Answer, ModelInfo
from rim_edge.slot import Slot
from rim_edge.spec import RimSpec

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

BUNDLED = Path(__file__).parent / "models" / "rim-tiny.gguf"


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    n_ctx: int | None = None,
    n_threads: int | None = None,
    n_gpu_layers: int = -1,
    cache_type: str = "f16",
    flash_attention: str = "auto",
    use_mmap: bool = True,
    n_batch: int = 2048,
    progress: Callable[[float], bool | None] | None = None,
) -> Model:
    """Load a model.

    Args:
        path: a GGUF file or an ONNX folder; None is the bundled rim-tiny. On an ONNX folder, which runs on the CPU with
            an F32 cache, ``n_gpu_layers``, ``cache_type``, ``flash_attention`` and ``use_mmap`` have no effect.
        n_ctx: tokens of visible text, question and answer, that fit. None: what the model was trained for less its
            memory blocks, at most 4096. The blocks do not count against it, they have room of their own.
        n_threads: None: the physical cores that this process may use.
        n_gpu_layers: layers on the GPU, -1 for all; without effect where libllama has none.
        cache_type: of the attention cache: ``f32``, ``f16``, ``bf16``, ``q8_0``, ``q4_0``, ...
        flash_attention: ``auto``, ``on`` or ``off``.
        use_mmap: map the file into memory; False reads it.
        n_batch: most tokens that one pass takes.
        progress: called with 0..1 while loading; returning False stops it.

    Raises:
        ModelFileError: nothing there, or nothing that can be run.
        SpecError: the memory-slot metadata is wrong.
        OptionError: an option has a value that makes no sense.
        CancelledError: ``progress`` returned False.
    """
    if path is None and not BUNDLED.exists():
        raise ModelFileError(
            "the bundled model rim-tiny is missing from this installation: give the path of a .gguf model"
        )
    for name, value, least in (
        ("n_ctx", n_ctx, 2),
        ("n_threads", n_threads, 1),
        ("n_gpu_layers", n_gpu_layers, -1),
        ("n_batch", n_batch, 1),
    ):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**31):
            raise OptionError(f"{name} is {value!r}, expected a whole number, {least} or more")
    options = LoadOptions(
        n_threads=n_threads,
        n_gpu_layers=n_gpu_layers,
        cache_type=cache_type,
        flash_attention=flash_attention,
        use_mmap=use_mmap,
        n_batch=n_batch,
        progress=progress,
    )
    backend = open_backend(BUNDLED if path is None else Path(path), options)
    try:
        return Model(backend, n_ctx)
    except BaseException:
        backend.close()
        raise


class Model:
    """Loaded weights. Made by :func:`load`; a context manager, whose end is :meth:`close`.

    All methods may be called from any thread. Calls of :meth:`ask` are served one after the other; each starts from an
    empty context, so that an answer never depends on what was asked before. The same holds for the batches of
    :meth:`ask_many`. Chats have contexts of their own and run beside them.

    Attributes:
        info: what the model is.
        spec: its memory-slot metadata, None for a plain model.
        n_ctx: tokens of visible text that fit, memory blocks not counted.
        notices: remarks for the user about this model.
    """

    def __init__(self, backend: Backend, n_ctx: int | None = None) -> None:
        self.info: ModelInfo = backend.info
        self.spec: RimSpec | None = backend.spec
        self._backend = backend
        self._prompts = PromptBuilder(backend.tokenizer, backend.spec)
        self._context = Context(backend, n_ctx)
        self.n_ctx: int = self._context.n_ctx
        self.notices: tuple[str, ...] = (*_notices(backend), *self._context.notices)
        self._one, self._many = Slot(backend, "rim-edge-ask"), Slot(backend, "rim-edge-ask-many")
        self._owners: dict[Slot, int] = {}
        self._working: set[CancelToken] = set()
        self._chats: weakref.WeakSet[Chat] = weakref.WeakSet()
        self._guard = threading.Lock()
        self._closed = False

    # ---- single questions -------------------------------------------------------------------------------------------

    def ask(self, question: str, **options: Unpack[Options]) -> Answer:
        """Answer one question. Options: :class:`rim_edge.options.Options`.

        Raises:
            OptionError, UnsupportedError: an option makes no sense, or not for this model.
            ContextFullError: the question does not fit; raised before any work.
            TemplateError: the model's template cannot be rendered.
            CancelledError: cancelled before any text; later the answer so far is returned, ``finish == "cancelled"``.
            BusyError: called from a callback of the same model's ``ask``.
            ClosedError: after :meth:`close`.
        """
        return self._ask(question, options, CancelToken())

    async def ask_async(self, question: str, **options: Unpack[Options]) -> Answer:
        """:meth:`ask` in a thread; cancelling the awaiting task stops the work."""
        token = CancelToken()
        return await in_thread(lambda: self._ask(question, options, token), token)

    def _ask(self, question: str, options: Options, token: CancelToken) -> Answer:
        started = time.perf_counter()
        self._check_open()
        request = self._request(options)
        prompt = self._prompt(question, request)
        limit = self._context.answer_limit(len(prompt.tokens))
        with self._at_work(self._one, token):
            session = self._one.session(self._context.cells(request, limit))

            def work(emit: Emit) -> list[loop.Outcome]:
                with token.attached(session):
                    session.reset()
                    return loop.run(
                        self._backend,
                        session,
                        [prompt.tokens],
                        request,
                        limit,
                        started=started,
                        on_text=(lambda piece: emit((piece, 0, 0))) if request.on_text else None,
                        on_prefill=(lambda done, total: emit(("", done, total))) if request.on_prefill else None,
                    )

            task = Task(self._one.pool, work, token)
            deliver(task, request.on_text, request.on_prefill)
            (outcome,) = task.result()
        return self._remarked(outcome.answer, prompt, question)

    # ---- many questions ---------------------------------------------------------------------------------------------

    def ask_many(
        self,
        questions: Iterable[str],
        *,
        batch: int | None = None,
        progress: Callable[[int, int], bool | None] | None = None,
        **options: Unpack[Options],
    ) -> list[Answer]:
        """Answer many questions, ``batch`` of them side by side in one context (docs/python.md: what it gains).

        Args:
            questions: the questions.
            batch: questions side by side, ``batch * rim.max_block_count <= 256``; None: 4.
            progress: called with (answers done, questions in all) after each batch; returning False stops with
                CancelledError.
            options: as for :meth:`ask`, without ``on_text`` and ``on_prefill``.

        Returns:
            The answers in the order of the questions. Greedy answers are those of :meth:`ask`, up to the rounding that
            libllama shows between passes of different width.

        Raises:
            As :meth:`ask`; a question that does not fit is named by its index, before any work.
        """
        return list(self.iter_many(questions, batch=batch, progress=progress, **options))

    async def ask_many_async(
        self, questions: Iterable[str], *, batch: int | None = None, **options: Unpack[Options]
    ) -> list[Answer]:
        """:meth:`ask_many` in a thread; cancelling the awaiting task stops the work."""
        token = CancelToken()
        return await in_thread(lambda: list(self._iter_many(questions, batch, None, options, token)), token)

    def iter_many(
        self,
        questions: Iterable[str],
        *,
        batch: int | None = None,
        progress: Callable[[int, int], bool | None] | None = None,
        **options: Unpack[Options],
    ) -> Iterator[Answer]:
        """:meth:`ask_many`, giving each answer when its batch is done. All is checked at the call, before any work."""
        return self._iter_many(questions, batch, progress, options, CancelToken())

    def _iter_many(
        self,
        questions: Iterable[str],
        batch: int | None,
        progress: Callable[[int, int], bool | None] | None,
        options: Options,
        token: CancelToken,
    ) -> Iterator[Answer]:
        self._check_open()
        request = self._request(options)
        if request.on_text is not None or request.on_prefill is not None:
            raise OptionError("on_text and on_prefill work with ask, not with ask_many: use progress, or iter_many")
        n_lanes = many.lanes(batch, self.spec.max_block_count if self.spec and not self._backend.coupled_reason else 1)
        questions = list(questions)
        prompts = []
        for index, question in enumerate(questions):
            prompts.append(self._prompt(question, request, f"question {index}"))
            self._context.answer_limit(len(prompts[-1].tokens), f"question {index}")

        def answers() -> Iterator[Answer]:
            done = 0
            for part in many.batches(prompts, request, self._context, n_lanes):
                for index, outcome in enumerate(self._run_batch(part, request, token), part.first):
                    if outcome.cut:  # no room beside the others: alone there is more
                        yield self._ask(questions[index], options, token)
                    else:
                        yield self._remarked(outcome.answer, prompts[index], questions[index])
                done += len(part.prompts)
                if progress is not None and progress(done, len(prompts)) is False:
                    raise CancelledError(f"cancelled after {done} of {len(prompts)} questions")

        return answers()

    def _run_batch(self, part: many.Batch, request: Request, token: CancelToken) -> list[loop.Outcome]:
        started = time.perf_counter()
        with self._at_work(self._many, token):
            session = self._many.session(part.n_cells, len(part.prompts))

            def work(_: Emit) -> list[loop.Outcome]:
                with token.attached(session):
                    session.reset()
                    prompts = [prompt.tokens for prompt in part.prompts]
                    return loop.run(self._backend, session, prompts, request, part.limit, started=started)

            return Task(self._many.pool, work, token).result()

    # ---- chats, cancelling, closing
    # -----------------------------------------------------------------------------------

    def chat(self, **options: Unpack[Options]) -> Chat:
        """A conversation with a context of its own. ``options`` are its defaults, each may be given again per question.

        Raises:
            OptionError, UnsupportedError: an option makes no sense, or not for this model.
            ClosedError: after :meth:`close`.
        """
        self._check_open()
        chat = Chat(self._backend, self._prompts, self._context, options)
        self._chats.add(chat)
        return chat

    def cancel(self) -> None:
        """Stop what :meth:`ask` and :meth:`ask_many` are doing, from any thread; nothing happens where idle."""
        with self._guard:
            working = list(self._working)
        for token in working:
            token.cancel()

    def close(self) -> None:
        """Stop all work, close all chats, and free the memory at once. May be called again."""
        if threading.get_ident() in self._owners.values():
            raise BusyError("close() was called from a callback of ask: return from it first")
        with self._guard:
            if self._closed:
                return
            self._closed = True
        self.cancel()
        for chat in list(self._chats):
            chat.close()
        for slot in (self._one, self._many):
            with slot.lock:
                slot.close()
        self._backend.close()

    @property
    def closed(self) -> bool:
        return self._closed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- shared -----------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the model is closed: load it again")

    def _request(self, options: Options) -> Request:
        return check(options, self.spec, self._backend.coupled_reason)

    def _prompt(self, question: str, request: Request, what: str = "the question") -> Prompt:
        if not isinstance(question, str):
            raise OptionError(f"{what} is {type(question).__name__}, expected text")
        return self._prompts.question(question, request.system)

    def _remarked(self, answer: Answer, prompt: Prompt, question: str) -> Answer:
        """``answer`` with the remarks on its prompt; made last, so that they cost no time to the first token."""
        words = vocabulary.notices(self.spec, self._backend.tokenizer, question)
        return replace(answer, notices=(*answer.notices, *prompt.notices, *words))

    @contextlib.contextmanager
    def _at_work(self, slot: Slot, token: CancelToken) -> Iterator[None]:
        """Hold ``slot`` for one call, and let cancel() and close() find the work."""
        if self._owners.get(slot) == threading.get_ident():
            raise BusyError("ask was called from a callback of ask: return from it first")
        with slot.lock:
            with self._guard:
                self._check_open()
                self._working.add(token)
                self._owners[slot] = threading.get_ident()
            try:
                yield
            finally:
                with self._guard:
                    self._working.discard(token)
                    del self._owners[slot]


def _notices(backend: Backend) -> tuple[str, ...]:
    if backend.spec is None:
        return ("no memory-slot metadata (rim.*): this model answers directly, without memory blocks",)
    if backend.coupled_reason:
        return (f"memory blocks cannot run on this model, {backend.coupled_reason}: use blocks=0",)
    return ()
