"""The lanes of an ONNX session: per question one row of cache, and the visible text that it holds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from rim_edge.backends.onnx_graph import Cache, Layout
from rim_edge.errors import ContextFullError, OptionError

_CAPACITY_STEP = 256  # a row grows to a multiple of this many tokens


@dataclass
class Lane:
    """One question's row.

    Attributes:
        text: visible tokens that the row holds at its beginning; what lies behind is overwritten.
        cache: the row, None where it was never used.
    """

    layout: Layout
    text: list[int] = field(default_factory=list)
    cache: Cache | None = None

    def common(self, tokens: Sequence[int]) -> int:
        """Length of the common beginning of ``tokens`` and the text."""
        n = min(len(self.text), len(tokens))
        return next((i for i in range(n) if self.text[i] != tokens[i]), n)

    def row(self, length: int, used: int) -> Cache:
        """The row with room for ``length`` tokens; the first ``used`` of them stay."""
        if self.cache is None or self.cache.capacity < length:
            capacity = -(-length // _CAPACITY_STEP) * _CAPACITY_STEP
            self.cache = self.cache.grown(capacity, [used]) if self.cache and used else Cache(self.layout, 1, capacity)
        return self.cache


class Lanes:
    """All lanes, and the tokens that they may hold together.

    Args:
        layout: of the graph.
        n_lanes: questions side by side.
        n_cells: tokens in all: text, blocks, prefixes and answers.
        n_positions: tokens that one lane may hold.
    """

    def __init__(self, layout: Layout, n_lanes: int, n_cells: int, n_positions: int) -> None:
        if n_lanes < 1 or n_cells < 1:
            raise OptionError(f"n_lanes is {n_lanes} and n_cells {n_cells}, but both must be at least 1")
        self._lanes = [Lane(layout) for _ in range(n_lanes)]
        self.n_cells, self.n_positions = n_cells, n_positions

    def __len__(self) -> int:
        return len(self._lanes)

    def __getitem__(self, index: int) -> Lane:
        if not 0 <= index < len(self._lanes):
            raise OptionError(f"lane {index} does not exist: the session has {len(self._lanes)}")
        return self._lanes[index]

    def first(self, n: int) -> list[Lane]:
        return self._lanes[:n]

    @property
    def visible(self) -> int:
        """Tokens of visible text in all lanes."""
        return sum(len(lane.text) for lane in self._lanes)

    def forget(self) -> None:
        """Drop all visible text; the rows stay for the next one."""
        for lane in self._lanes:
            lane.text = []

    def drop(self) -> None:
        """Free the rows."""
        for lane in self._lanes:
            lane.text, lane.cache = [], None

    def make_room(self, busy: Collection[int], needed: int, longest: int) -> None:
        """Check that the lanes ``busy`` may hold ``needed`` tokens, ``longest`` of them in one.

        The other lanes forget their text where that makes room.

        Raises:
            ContextFullError: it does not fit.
        """
        for count, limit, what in (
            (longest, self.n_positions, "positions, but the model has"),
            (needed, self.n_cells, "tokens, but the context holds"),
        ):
            if count > limit:
                raise ContextFullError(
                    f"the text with its blocks needs {count} {what} {limit}: "
                    "shorten the conversation or use a larger context",
                    needed=count,
                    available=limit,
                )
        others = [lane for index, lane in enumerate(self._lanes) if index not in busy]
        if needed + sum(len(lane.text) for lane in others) > self.n_cells:
            for lane in others:
                lane.text, lane.cache = [], None
