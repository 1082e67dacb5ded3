"""The rule by which adaptive depth stops."""

from __future__ import annotations

from rim_edge.depth import HaltingRule
from rim_edge.results import Readout


def readouts(*heads: tuple[int, float], probe: float | None = None) -> list[Readout]:
    return [Readout(k, "x", token, 0.5, entropy, probe=probe) for k, (token, entropy) in enumerate(heads, 1)]


def test_groups_end_at_the_greatest_depth() -> None:
    rule = HaltingRule(groups=(2, 4))
    assert rule.depths(8) == (2, 4, 8)
    assert rule.depths(4) == (2, 4)
    assert rule.depths(3) == (2, 3)
    assert rule.depths(1) == (1,)


def test_agreement_and_low_entropy_are_sure() -> None:
    rule = HaltingRule(entropy=0.1)
    assert rule.sure(readouts((5, 0.9), (5, 0.1)))
    assert not rule.sure(readouts((5, 0.9), (5, 0.2)))
    assert not rule.sure(readouts((4, 0.0), (5, 0.0)))


def test_a_probe_decides_alone() -> None:
    rule = HaltingRule(probe=0.8)
    assert rule.sure(readouts((4, 3.0), (5, 3.0), probe=0.8))
    assert not rule.sure(readouts((5, 0.0), (5, 0.0), probe=0.79))
