"""Many questions through one context: batches of lanes, each lane one question with its own readouts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rim_edge.context import Context
from rim_edge.errors import OptionError
from rim_edge.options import Request
from rim_edge.prompt import Prompt

DEFAULT_BATCH = 4  # docs/python.md has the measurement
MOST_SEQUENCES = 256  # of libllama; each readout of each lane is one
_USUAL_ANSWER = 512  # cells planned per answer where max_tokens does not say
_USUAL_READOUT = 64  # the same where every readout is decoded


@dataclass(frozen=True)
class Batch:
    """Questions that run side by side.

    Attributes:
        first: index of the first one among all questions.
        prompts: their prompts.
        limit: most tokens of each answer; one that ends here for want of room is asked again alone.
        n_cells: cells that the batch takes.
    """

    first: int
    prompts: Sequence[Prompt]
    limit: int
    n_cells: int


def lanes(batch: int | None, n_sequences: int) -> int:
    """Questions side by side, for ``n_sequences`` readouts per question.

    Raises:
        OptionError: not a number, or more than libllama has sequences for.
    """
    most = MOST_SEQUENCES // max(1, n_sequences)
    if batch is None:
        return min(DEFAULT_BATCH, most)
    if isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= most:
        raise OptionError(f"batch is {batch!r}, expected a whole number, 1 to {most}")
    return batch


def batches(prompts: Sequence[Prompt], request: Request, context: Context, n_lanes: int) -> Iterator[Batch]:
    """Cut ``prompts``, each known to fit, into batches."""
    usual = _USUAL_READOUT if request.decodes_all else _USUAL_ANSWER
    for first in range(0, len(prompts), n_lanes):
        part = prompts[first : first + n_lanes]
        limits = [context.n_ctx - len(prompt.tokens) for prompt in part]
        room = sum(context.readout_room(request, limit, usual) for limit in limits)
        text = sum(len(prompt.tokens) for prompt in part)
        yield Batch(first, part, min(limits), text + room + len(part) * context.block_room)
