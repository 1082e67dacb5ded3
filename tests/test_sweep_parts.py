"""The sweep's parts by themselves: distances, statistics, resumable files, the Pareto front, pictures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convert.sweep.chart import svg
from convert.sweep.divergence import divergence, log_softmax, share, summarize
from convert.sweep.panels import log_ticks, panels, place_labels, ticks
from convert.sweep.pareto import divergence_of, front, recommend, size_of
from convert.sweep.picture import picture
from convert.sweep.plan import differences
from convert.sweep.rows import RowFile
from convert.sweep.store import Store
from rim_edge.errors import OptionError

# ---- distances ------------------------------------------------------------------------------------------------------


def test_divergence_of_two_known_distributions() -> None:
    p, q = [0.5, 0.25, 0.25], [0.25, 0.25, 0.5]
    expected = 0.5 * math.log(2) + 0.25 * math.log(0.5)
    assert divergence(np.log(p) + 7, np.log(q) - 3) == pytest.approx(expected, abs=1e-12)
    assert divergence(np.log(p), np.log(p)) == 0


def test_tokens_left_out_do_not_count() -> None:
    p, q = np.array([1.0, 2.0, 3.0, 50.0]), np.array([1.0, 2.0, 3.0, -50.0])
    assert divergence(p, q) > 10
    assert divergence(p, q, without=(3,)) == 0
    assert np.exp(log_softmax(p, (3,))).sum() == pytest.approx(1)


@given(st.lists(st.lists(st.floats(0, 10), min_size=1, max_size=6), min_size=2, max_size=8))
def test_statistics_are_those_of_all_tokens(groups: list[list[float]]) -> None:
    values = [value for group in groups for value in group]
    found = summarize(groups)
    assert (found["n_tokens"], found["n_questions"]) == (len(values), len(groups))
    assert found["mean"] == pytest.approx(np.mean(values))
    assert found["median"] == pytest.approx(np.median(values))
    assert found["p99"] == pytest.approx(np.quantile(values, 0.99))
    assert all(found[f"{name}_se"] >= 0 for name in ("mean", "median", "p99"))


def test_the_tokens_of_a_question_are_one_observation() -> None:
    rng = np.random.default_rng(0)
    single = rng.exponential(1, 400)
    repeated = summarize([[value] * 25 for value in single])
    assert repeated["mean_se"] == pytest.approx(single.std(ddof=1) / 20, rel=1e-6)
    alone = summarize([[value] for value in single])
    assert repeated["p99_se"] == pytest.approx(alone["p99_se"], rel=0.05)
    # the spread of the statistic over new samples, which the standard error must tell
    again = [summarize([[v] for v in rng.exponential(1, 400)])["median"] for _ in range(200)]
    assert alone["median_se"] == pytest.approx(np.std(again), rel=0.5)


def test_shares() -> None:
    assert share([[True, False], [True], []]) == {
        "n": 3,
        "share": pytest.approx(2 / 3),
        "se": pytest.approx(2 / 9),
    }
    assert share([]) == {"n": 0}
    assert summarize([]) == {"n_tokens": 0, "n_questions": 0}
    assert summarize([[1.0]])["mean_se"] is None


# ---- files that go on -----------------------------------------------------------------------------------------------


def row(line: int) -> dict[str, Any]:
    return {"line": line, "readouts": []}


def test_rows_go_on_after_whole_batches(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    file = RowFile(path, "key", 2, 5)
    file.append([row(1), row(2)])
    file.append([row(3), row(4)])
    with open(path, "ab") as tail:
        tail.write(b'{"line": 5, "readou')  # where a kill struck
    again = RowFile(path, "key", 2, 5)
    assert [r["line"] for r in again.rows] == [1, 2, 3, 4] and not again.complete
    again.append([row(5)])
    assert again.complete and RowFile(path, "key", 2, 5).complete
    assert RowFile(path, "other key", 2, 5).rows == []


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_rows_cut_anywhere_are_whole_batches(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "rows.jsonl"
    file = RowFile(path, "key", 2, 6)
    for first in (1, 3, 5):
        file.append([row(first), row(first + 1)])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - cut])
    again = RowFile(path, "key", 2, 6)
    assert len(again.rows) in (0, 2, 4)
    assert again.rows == [row(i + 1) for i in range(len(again.rows))]
    again.append([row(len(again.rows) + 1), row(len(again.rows) + 2)])
    assert [r["line"] for r in RowFile(path, "key", 2, 6).rows] == list(range(1, len(again.rows) + 1))


def test_damage_in_the_middle_loses_what_follows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    RowFile(path, "key", 1, 3).append([row(1), row(2), row(3)])
    path.write_bytes(path.read_bytes().replace(b'"line": 2', b"garbage"))
    assert [r["line"] for r in RowFile(path, "key", 1, 3).rows] == [1]


def test_a_part_counts_for_its_key_alone(tmp_path: Path) -> None:
    store = Store(tmp_path / "sweep", {"source": "a"})
    store.put("types/q4_0/file.json", {"recipe": 1}, [1, 2])
    assert store.get("types/q4_0/file.json", {"recipe": 1}) == [1, 2]
    assert store.get("types/q4_0/file.json", {"recipe": 2}) is None
    store.path("types/q4_0/file.json").write_text("{half")
    assert store.get("types/q4_0/file.json", {"recipe": 1}) is None


def test_another_sweep_is_refused_with_what_differs(tmp_path: Path) -> None:
    before = {"source": "a", "data": "b", "max_tokens": 64}
    Store(tmp_path / "sweep", before)
    Store(tmp_path / "sweep", before)
    with pytest.raises(OptionError, match=r"the data; --max-tokens \(64 before, 32 now\)"):
        Store(tmp_path / "sweep", {"source": "a", "data": "c", "max_tokens": 32})
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.png").write_text("")
    with pytest.raises(OptionError, match="no folder of a sweep"):
        Store(tmp_path / "photos", before)
    with pytest.raises(OptionError, match="is a file"):
        Store(tmp_path / "photos" / "me.png", before)
    assert differences(before, before) == []


# ---- front and recommendation ---------------------------------------------------------------------------------------


def entry(name: str, size: int, kl: float, lost: int = 0, won: int = 0, ttft: float | None = None) -> dict[str, Any]:
    """A type with 200 answers, of which the reference has 100 right."""
    right = 100 - lost + won
    accuracy = {"k": right, "n": 200, "share": right / 200, "low": right / 200 - 0.07, "high": right / 200 + 0.07}
    accuracy |= {"difference": (won - lost) / 200, "difference_low": -0.03, "difference_high": 0.02}
    accuracy |= {"right_to_wrong": lost, "wrong_to_right": won}
    return {
        "type": name,
        "reference": False,
        "file": {"size_bytes": size},
        "quality": {
            "kl": {"mean": kl, "mean_se": kl / 10},
            "selections": {"final": accuracy},
            "answer_agreement": {"share": 0.95, "n": 200},
        },
        "speed": None if ttft is None else {"ttft_rim_ms": {"median": ttft}},
    }


def reference(size: int, ttft: float | None = None) -> dict[str, Any]:
    return entry("bf16", size, 0.0, ttft=ttft) | {"reference": True}


ENTRIES = [
    reference(4_000_000, 40.0),
    entry("q8_0", 2_100_000, 0.001, 0, 0, 70.0),
    entry("q5_k_m", 1_400_000, 0.02, 3, 2, 60.0),
    entry("q4_0", 1_200_000, 0.05, 6, 2, 30.0),
    entry("iq4_nl", 1_210_000, 0.08, 2, 1, 35.0),
    entry("q2_k", 700_000, 0.9, 60, 4, 50.0),
]


def test_front() -> None:
    assert front(ENTRIES, size_of, divergence_of) == ["q2_k", "q4_0", "q5_k_m", "q8_0", "bf16"]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_nothing_on_the_front_is_beaten(costs: list[tuple[int, int]]) -> None:
    entries = [entry(str(i), size, kl) for i, (size, kl) in enumerate(costs)]
    found = front(entries, size_of, divergence_of)
    points = {str(i): point for i, point in enumerate(costs)}
    for name, point in points.items():
        beaten = any(o[0] <= point[0] and o[1] <= point[1] and o != point for o in points.values())
        twin = any(points[other] == point for other in found)
        assert (name in found) != beaten or twin


def test_recommendation() -> None:
    found = recommend(ENTRIES)
    assert (found["smallest"], found["fastest"], found["fastest_of_all"]) == ("iq4_nl", "iq4_nl", "q4_0")
    assert found["sentence"].startswith(
        "iq4_nl (1.2 MB) is the smallest file that loses less than 1 point (-0.5 points"
    )
    assert "q4_0 is faster still (30.0 ms) but loses more (-2.0 points" in found["sentence"]


def test_recommendation_where_everything_loses() -> None:
    found = recommend([reference(4_000_000), entry("q2_k", 700_000, 0.9, 60, 4)])
    assert found["smallest"] == "bf16" and found["fastest"] is None


def test_without_answers_what_counts_is_that_they_stay() -> None:
    lossy, exact = entry("q4_0", 1_000_000, 0.1), entry("q8_0", 2_000_000, 0.001)
    for one in (lossy, exact):
        one["quality"]["selections"]["final"] = None
    exact["quality"]["answer_agreement"]["share"] = 0.995
    found = recommend([reference(4_000_000), exact, lossy])
    assert found["smallest"] == "q8_0" and "99.5 % of 200 answers are the same" in found["sentence"]


# ---- pictures -------------------------------------------------------------------------------------------------------


def test_panels_and_their_pictures() -> None:
    shown = panels(ENTRIES)
    assert [panel.title.split(" against ")[1] for panel in shown] == ["divergence"] * 2 + ["accuracy"] * 2
    assert {point.name for point in shown[0].points} == {"q8_0", "q5_k_m", "q4_0", "iq4_nl", "q2_k"}
    for panel in shown:
        drawn = svg(panel)
        assert all(f">{point.name}</text>" in drawn for point in panel.points)
        assert "http" not in drawn
    data = picture(ENTRIES, "sizes")
    assert data is not None and data.startswith(b"\x89PNG") and len(data) > 10_000


@given(st.lists(st.tuples(st.floats(60, 500), st.floats(40, 330)), min_size=1, max_size=9))
def test_labels_stay_inside(points: list[tuple[float, float]]) -> None:
    boxes = place_labels(points, [40.0] * len(points), 14, (0, 0, 560, 380))
    assert all(left >= 0 and top >= 0 and right <= 560 and bottom <= 380 for left, top, right, bottom in boxes)


def test_labels_avoid_each_other() -> None:
    boxes = place_labels([(100, 100), (106, 103), (112, 98)], [40, 40, 40], 14, (0, 0, 560, 380))
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_ticks_are_round() -> None:
    assert ticks(0.3, 2.1) == [0.5, 1.0, 1.5, 2.0]
    assert log_ticks(-3.1, 0.2) == [0.001, 0.01, 0.1, 1.0]
    assert [f"{v:g}" for v in log_ticks(-1.1, 0.1)] == ["0.1", "0.2", "0.5", "1"]
    assert ticks(0, 7) == [0, 2, 4, 6]
