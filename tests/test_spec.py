"""Memory-slot metadata: what is written is read back the same, and what is wrong is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rim_edge._native import GgufFile

from rim_edge import RimSpec, SpecError
from tests.shapes import make_model, random_probe

N_EMBD = 8
FLOATS = st.floats(-1e6, 1e6, width=32)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)


@st.composite
def specs(draw: st.DrawFn) -> RimSpec:
    begin, memory, end = draw(st.lists(st.integers(0, 2**31 - 1), min_size=3, max_size=3, unique=True))
    count = draw(st.integers(1, 16))
    deepest = draw(st.integers(count, 20))
    probe = draw(st.booleans())
    return RimSpec(
        begin_id=begin,
        memory_id=memory,
        end_id=end,
        block_count=count,
        block_size=draw(st.integers(1, 1024)),
        max_block_count=deepest,
        prompt_template=draw(st.none() | TEXT),
        answer_prefix=draw(st.none() | TEXT),
        answer_pattern=draw(st.sampled_from([None, r"(-?\d+)", r"answer: ([^\n]*)"])),
        trained_direct=draw(st.booleans()),
        closed_vocabulary=draw(st.booleans()),
        probe_weight=draw(arrays(np.float32, (deepest, N_EMBD), elements=FLOATS)) if probe else None,
        probe_bias=draw(arrays(np.float32, (deepest,), elements=FLOATS)) if probe else None,
        source=draw(st.dictionaries(st.text("abcxyz_.", min_size=1, max_size=8), TEXT, max_size=3)),
    )


class KeyValues:
    """Takes what a ``gguf.GGUFWriter`` takes, as a file would give it back."""

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {"general.architecture": "llama"}

    def add_uint32(self, key: str, val: int) -> None:
        self.metadata[key] = val

    def add_string(self, key: str, val: str) -> None:
        self.metadata[key] = val

    def add_bool(self, key: str, val: bool) -> None:
        self.metadata[key] = val

    def add_array(self, key: str, val: list[float]) -> None:
        self.metadata[key] = np.array(val, np.float32)


def assert_same(left: RimSpec | None, right: RimSpec) -> None:
    assert left is not None
    for name, value in vars(right).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(getattr(left, name), value)
        else:
            assert getattr(left, name) == value, name


@given(specs())
def test_metadata_survives_gguf_keys(spec: RimSpec) -> None:
    writer = KeyValues()
    spec.to_gguf(writer)
    assert_same(RimSpec.from_gguf(writer.metadata, N_EMBD), spec)


@given(specs())
def test_metadata_survives_string_properties(spec: RimSpec) -> None:
    props = spec.to_props()
    assert all(type(value) is str for value in props.values())
    assert_same(RimSpec.from_props({"other": "x", **props}, N_EMBD), spec)


@given(specs())
def test_metadata_survives_json(spec: RimSpec) -> None:
    assert_same(RimSpec.from_json(spec.to_json(), spec.probe_weight, spec.probe_bias), spec)


def test_metadata_survives_a_file(tmp_path: Path) -> None:
    spec = RimSpec(
        begin_id=1,
        memory_id=2,
        end_id=3,
        answer_prefix="The answer is",
        answer_pattern=r"(\d+)",
        closed_vocabulary=True,
        source={"base": "none", "commit": "é"},
        **random_probe(8, N_EMBD),
    )
    writer = gguf.GGUFWriter(tmp_path / "spec.gguf", "llama")
    spec.to_gguf(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert_same(RimSpec.from_gguf(GgufFile(str(tmp_path / "spec.gguf")).metadata, N_EMBD), spec)


def test_a_plain_model_has_none(tmp_path: Path) -> None:
    assert RimSpec.from_gguf({"general.architecture": "llama"}) is None
    assert RimSpec.from_props({"format": "onnx"}) is None
    assert RimSpec.from_gguf(GgufFile(str(make_model(tmp_path / "plain.gguf", spec=None))).metadata) is None


GOOD: dict[str, Any] = {
    "rim.version": 1,
    "rim.block_count": 4,
    "rim.block_size": 2,
    "rim.max_block_count": 4,
    "rim.token.begin_id": 5,
    "rim.token.memory_id": 6,
    "rim.token.end_id": 7,
}
ONES = np.ones(4 * N_EMBD, np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rim.version": None}, "rim.version is missing"),
        ({"rim.version": 2}, "rim.version is 2, this RiM Edge reads up to 1"),
        ({"rim.version": 0}, "rim.version is 0"),
        ({"rim.version": "1"}, "rim.version has the type str"),
        ({"rim.block_count": None}, "rim.block_count is missing"),
        ({"rim.block_count": 0}, "rim.block_count is 0"),
        ({"rim.block_count": 4_000_000_000}, "rim.block_count is 4000000000"),
        ({"rim.block_count": True}, "rim.block_count has the type bool"),
        ({"rim.block_count": 4.0}, "rim.block_count has the type float"),
        ({"rim.block_size": 0}, "rim.block_size is 0"),
        ({"rim.block_size": 2_000_000}, "rim.block_size is 2000000"),
        ({"rim.max_block_count": 3}, "rim.max_block_count is 3"),
        ({"rim.max_block_count": 257}, "rim.max_block_count is 257"),
        ({"rim.token.end_id": None}, "rim.token.end_id is missing"),
        ({"rim.token.end_id": -1}, "rim.token.end_id is -1"),
        ({"rim.token.end_id": 6}, "must differ"),
        ({"rim.token.end_id": 100}, "rim.token.end_id is 100, but the vocabulary has 100 tokens"),
        ({"rim.answer_pattern": "("}, "rim.answer_pattern is not a regular expression"),
        ({"rim.answer_pattern": r"\d+"}, "has no group 1"),
        ({"rim.answer_pattern": 3}, "rim.answer_pattern has the type int"),
        ({"rim.trained_direct": 1}, "rim.trained_direct has the type int"),
        ({"rim.source.base": 1}, "rim.source.base has the type int"),
        ({"rim.probe.weight": ONES}, "both be present"),
        ({"rim.probe.bias": ONES[:4]}, "both be present"),
        ({"rim.probe.weight": ONES[1:], "rim.probe.bias": ONES[:4]}, "has 31 values, expected 4 blocks x 8"),
        ({"rim.probe.weight": ONES[:16], "rim.probe.bias": ONES[:2]}, "covers 2 blocks, the model runs up to 4"),
        ({"rim.probe.weight": ONES * np.nan, "rim.probe.bias": ONES[:4]}, "NaN or infinite"),
        ({"rim.probe.weight": ONES, "rim.probe.bias": ONES[:4] * np.inf}, "NaN or infinite"),
        ({"rim.probe.weight": "x", "rim.probe.bias": ONES[:4]}, "rim.probe.weight is not an array"),
        ({"rim.probe.weight": ONES.astype(np.int32), "rim.probe.bias": ONES[:4]}, "rim.probe.weight is not an array"),
    ],
)
def test_wrong_metadata_is_named(change: dict[str, Any], message: str) -> None:
    metadata = {key: value for key, value in {**GOOD, **change}.items() if value is not None}
    with pytest.raises(SpecError) as caught:
        spec = RimSpec.from_gguf(metadata, N_EMBD)
        assert spec is not None
        spec.check_model(100, N_EMBD)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_newer_version_may_have_other_keys() -> None:
    with pytest.raises(SpecError, match="upgrade rim-edge"):
        RimSpec.from_gguf({"rim.version": 9, "rim.blocks": "other"})
    with pytest.raises(SpecError, match="upgrade rim-edge"):
        RimSpec.from_json({"version": 9, "blocks": "other"})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"blocks": 8}, "unknown field 'blocks'"),
        ({"begin_id": 1, "memory_id": 2}, "rim.token.end_id is missing"),
        ({"begin_id": 1, "memory_id": 2, "end_id": 3, "block_count": 8, "block_size": 2, "source": [1]}, "source"),
    ],
)
def test_wrong_json_is_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        RimSpec.from_json(config)


def test_half_a_probe_beside_json_is_refused() -> None:
    config = RimSpec(begin_id=1, memory_id=2, end_id=3).to_json()
    with pytest.raises(SpecError, match="both the weight and the bias"):
        RimSpec.from_json(config, probe_weight=np.ones((8, 4), np.float32))


@pytest.mark.parametrize("props", [{"rim.version": "one"}, {"rim.version": "1", "rim.trained_direct": "yes"}])
def test_wrong_properties_are_named(props: dict[str, str]) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        RimSpec.from_props(props)


def test_probe_score_is_the_logistic_of_the_linear_form() -> None:
    spec = RimSpec(begin_id=1, memory_id=2, end_id=3, **random_probe(8, N_EMBD))
    hidden = np.linspace(-1, 1, N_EMBD, dtype=np.float32)
    assert spec.probe_weight is not None and spec.probe_bias is not None
    expected = 1 / (1 + np.exp(-(spec.probe_weight[2] @ hidden + spec.probe_bias[2])))
    assert spec.probe_score(3, hidden) == pytest.approx(float(expected), rel=1e-5)
    with pytest.raises(SpecError, match="no probe"):
        RimSpec(begin_id=1, memory_id=2, end_id=3).probe_score(1, hidden)
