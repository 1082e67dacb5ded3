"""Adaptive depth (``blocks="auto"``): run the memory blocks in a few groups and stop when the readouts so far are sure.

Attention is causal, so running blocks 1..d and then d+1..K gives the same readouts as one run of K (up to batch-width
rounding): stopping early loses nothing of what was run. Every group reads all weights once, so groups are few: 2
blocks, then the rest.

The rule, looked at after each group but the last:

- with a probe (``rim.probe.*``): stop when the score of the last block run is at least ``probe``;
- without: stop when all readouts so far agree on the most probable next token, and the entropy of the last one is at
  most ``entropy``.

docs/adaptive-depth.md holds the measured effect on depth, accuracy and time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rim_edge.results import Readout


@dataclass(frozen=True)
class HaltingRule:
    """When adaptive depth stops.

    Attributes:
        groups: depths at which to look, rising; the greatest depth itself is always the last.
        probe: least probe score of the last block, 0..1.
        entropy: greatest entropy of the last readout, nats, for models without a probe.
    """

    groups: tuple[int, ...] = (2,)
    probe: float = 0.9
    entropy: float = 0.5

    def depths(self, deepest: int) -> tuple[int, ...]:
        """Depths after each group, the last one ``deepest``."""
        return (*[depth for depth in self.groups if depth < deepest], deepest)

    def sure(self, readouts: Sequence[Readout]) -> bool:
        """Whether ``readouts`` of blocks 1..d are enough."""
        last = readouts[-1]
        if last.probe is not None:
            return last.probe >= self.probe
        return last.entropy <= self.entropy and all(readout.top_id == last.top_id for readout in readouts)


DEFAULT_RULE = HaltingRule()
