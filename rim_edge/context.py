"""How much fits: visible text that a model takes, and the cells that memory blocks and answers need on top."""

from __future__ import annotations

from rim_edge.backends.base import Backend
from rim_edge.errors import ContextFullError, ModelFileError, OptionError
from rim_edge.options import Request

DEFAULT_CONTEXT = 4096  # a file may say 131,072, whose cache would fill a laptop
USUAL_READOUT = 256  # cells planned per readout where all are decoded and max_tokens does not say


class Context:
    """Sizes for one model.

    Args:
        backend: the model.
        n_ctx: tokens of visible text as asked for; None: what the model was trained for, less the memory blocks, at
            most 4096.

    Attributes:
        n_ctx: tokens of visible text, question and answer, that fit.
        notices: remarks for the user.

    Raises:
        OptionError: the model has not that many positions.
    """

    def __init__(self, backend: Backend, n_ctx: int | None) -> None:
        self._backend = backend
        trained, hard = backend.info.n_ctx_train or DEFAULT_CONTEXT, backend.n_positions
        self.block_room = self.blocks(
            backend.spec.max_block_count if backend.spec and not backend.coupled_reason else 0
        )
        if hard is not None and hard <= self.block_room:
            raise ModelFileError(
                f"{backend.info.path}: the model has {hard} positions, its memory blocks alone take {self.block_room}"
            )
        if n_ctx is None:
            usual = max(trained - self.block_room, trained // 2)
            n_ctx = min(usual, DEFAULT_CONTEXT, usual if hard is None else hard - self.block_room)
        elif hard is not None and n_ctx + self.block_room > hard:
            raise OptionError(f"n_ctx is {n_ctx}, this model has positions for {hard - self.block_room} tokens of text")
        self.n_ctx = n_ctx
        over = n_ctx > trained
        self.notices = (
            (f"n_ctx is {n_ctx}, the model was trained for {trained}: expect worse answers to long text",)
            if over
            else ()
        )

    def blocks(self, depth: int) -> int:
        """Cells that ``depth`` memory blocks and the answer prefixes of their readouts take."""
        spec = self._backend.spec
        return depth * spec.block_width + max(1, depth) * len(self._backend.prefix) if spec else 0

    def answer_limit(self, n_prompt: int, what: str = "the question") -> int:
        """Answer tokens that fit after ``n_prompt`` visible ones; ContextFullError where not even one does."""
        if n_prompt >= self.n_ctx:
            raise ContextFullError(
                f"{what} takes {n_prompt} tokens and the context holds {self.n_ctx}, answer included: "
                "shorten it, or load with a larger n_ctx",
                needed=n_prompt + self.block_room + 1,
                available=self.n_ctx + self.block_room,
            )
        return self.n_ctx - n_prompt

    def readout_room(self, request: Request, limit: int, usual: int) -> int:
        """Cells for the answers of one question: ``max_tokens``, else ``usual``, for each readout that is decoded."""
        each = min(limit, usual if request.max_tokens is None else request.max_tokens)
        return each * (request.depth if request.decodes_all else 1)

    def cells(self, request: Request, limit: int) -> int:
        """Cells of a session for one question or chat."""
        extra = self.readout_room(request, limit, USUAL_READOUT) if request.decodes_all else 0
        return self.n_ctx + self.block_room + extra
