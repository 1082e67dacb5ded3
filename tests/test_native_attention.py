"""Our attention, through ggml, against float64; skipped where the processor lacks its instructions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import instruction_sets
import numpy as np
import numpy.typing as npt
import pytest
from shapes import make_model

from rim_edge import _native
from rim_edge.errors import OptionError, UnsupportedError

pytestmark = pytest.mark.skipif(not _native.kernels().attention, reason="no attention of ours on this processor")
Floats = npt.NDArray[np.float32]


def drawn(n: int, heads: int, size: int, seed: int) -> Floats:
    return np.random.default_rng(seed).standard_normal((n, heads, size), dtype=np.float32)


def causal(n_tokens: int, n_keys: int) -> Floats:
    """Token t sees the keys up to n_keys - n_tokens + t."""
    last = np.arange(n_tokens)[:, None] + n_keys - n_tokens
    return np.where(np.arange(n_keys) <= last, np.float32(0), np.float32(-np.inf)).astype(np.float32)


def reference(queries: Floats, keys: Floats, values: Floats, mask: Floats, scale: float, half: bool) -> Floats:
    """The definition, in float64, of the numbers that the cache keeps."""
    if half:
        keys, values = keys.astype(np.float16), values.astype(np.float16)
    share = queries.shape[1] // keys.shape[1]
    k = np.repeat(keys.astype(np.float64), share, axis=1)
    v = np.repeat(values.astype(np.float64), share, axis=1)
    scores = np.einsum("ihd,jhd->hij", queries.astype(np.float64), k) * scale + mask.astype(np.float16).astype(
        np.float64
    )
    most = scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isfinite(most), most, 0))
    total = weights.sum(axis=-1, keepdims=True)
    return np.einsum("hij,jhd->ihd", weights / np.where(total == 0, 1, total), v)


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize(
    ("n_tokens", "n_keys", "heads", "groups", "key_size", "value_size"),
    [
        (1, 1, 1, 1, 16, 16),
        (1, 300, 9, 3, 64, 64),
        (7, 64, 4, 4, 32, 32),
        (33, 65, 8, 2, 32, 32),
        (106, 256, 9, 3, 64, 64),
        (5, 130, 32, 1, 128, 64),
        (40, 100, 2, 1, 256, 256),
        (2, 1500, 4, 2, 32, 32),  # keys in several segments, more threads than heads
    ],
)
def test_attention_is_its_definition(
    n_tokens: int, n_keys: int, heads: int, groups: int, key_size: int, value_size: int, half: bool
) -> None:
    queries = drawn(n_tokens, heads, key_size, 1) * 3
    keys, values = drawn(n_keys, groups, key_size, 2), drawn(n_keys, groups, value_size, 3)
    mask = causal(n_tokens, n_keys)
    mask[:, ::5] -= np.float32(0.5)  # a mask may also weaken
    scale = key_size**-0.5
    for n_threads in (1, 3):
        found = _native.kernel_attention(queries, keys, values, mask, scale, half, n_threads)
        expected = reference(queries, keys, values, mask, scale, half)
        assert np.abs(found - expected).max() < 2e-6 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize(("heads", "groups"), [(9, 3), (8, 1), (4, 4)])
def test_answers_side_by_side_see_their_own_keys(heads: int, groups: int) -> None:
    """Each of 8 tokens sees the question and every eighth key after it: alone, together, beside tokens that see all."""
    n_answers, n_question, n_keys = 8, 70, 260
    queries = drawn(n_answers + 12, heads, 32, 1)
    keys, values = drawn(n_keys, groups, 32, 2), drawn(n_keys, groups, 48, 3)
    own = (np.arange(n_keys) - n_question) % n_answers == np.arange(n_answers)[:, None]
    mask = np.where((np.arange(n_keys) < n_question) | own, np.float32(0), np.float32(-np.inf)).astype(np.float32)
    for half in (False, True):
        found = _native.kernel_attention(queries[:n_answers], keys, values, mask, 0.2, half, 2)
        expected = reference(queries[:n_answers], keys, values, mask, 0.2, half)
        assert np.abs(found - expected).max() < 2e-6
        beside = np.concatenate([mask, np.zeros((12, n_keys), np.float32)])
        for n_threads in (1, 3):
            dense = _native.kernel_attention(queries, keys, values, beside, 0.2, half, n_threads)
            np.testing.assert_array_equal(dense[:n_answers], found)
        for token in range(n_answers):
            alone = _native.kernel_attention(
                queries[token : token + 1], keys, values, mask[token : token + 1], 0.2, half, 1
            )
            np.testing.assert_array_equal(alone[0], found[token])


def test_a_token_does_not_depend_on_what_runs_beside_it() -> None:
    """Not on the tokens of the pass, nor on further keys that it does not see, whatever stands there."""
    n_keys = 200
    queries, keys, values = drawn(90, 6, 64, 1), drawn(n_keys, 2, 64, 2), drawn(n_keys, 2, 64, 3)
    mask = causal(90, n_keys)
    mask[:, 30:100] = -np.inf  # a hole: the memory blocks of somebody else
    together = _native.kernel_attention(queries, keys, values, mask, 0.125)
    for first, end in ((0, 1), (0, 7), (7, 90), (89, 90)):
        part = _native.kernel_attention(queries[first:end], keys, values, mask[first:end], 0.125)
        assert np.array_equal(part, together[first:end])
    longer = np.concatenate([keys, np.full((70, 2, 64), np.nan, np.float32)])
    more = np.concatenate([values, np.full((70, 2, 64), np.inf, np.float32)])
    wider = np.concatenate([mask, np.full((90, 70), -np.inf, np.float32)], axis=1)
    assert np.array_equal(_native.kernel_attention(queries, longer, more, wider, 0.125), together)


def test_threads_that_share_the_keys_change_nothing() -> None:
    n_keys = 2100
    queries, keys, values = drawn(40, 4, 32, 1), drawn(n_keys, 2, 32, 2), drawn(n_keys, 2, 32, 3)
    mask = causal(40, n_keys)
    mask[:, 500:1100] = -np.inf  # a whole segment, and parts of its neighbours
    alone = _native.kernel_attention(queries, keys, values, mask, 0.2)
    for n_threads in (2, 5):
        assert np.array_equal(_native.kernel_attention(queries, keys, values, mask, 0.2, True, n_threads), alone)
    for n_tokens in (1, 8):
        for n_threads in (2, 4):
            last = _native.kernel_attention(queries[-n_tokens:], keys, values, mask[-n_tokens:], 0.2, True, n_threads)
            assert np.array_equal(last, alone[-n_tokens:])


def test_threads_that_share_the_keys_leave_out_what_none_sees() -> None:
    n_keys, n_seen = 2100, 900
    keys, values = drawn(n_keys, 2, 32, 2), drawn(n_keys, 2, 32, 3)
    keys[n_seen:], values[n_seen:] = np.nan, np.inf
    mask = np.full((3, n_keys), -np.inf, np.float32)
    mask[:2, :n_seen] = causal(2, n_seen)  # the third token sees nothing
    queries = drawn(3, 4, 32, 1)
    seen = (keys[:n_seen], values[:n_seen], mask[:, :n_seen])
    for half in (False, True):
        alone = _native.kernel_attention(queries, *seen, 0.2, half, 1)
        assert np.isfinite(alone).all() and not alone[2].any()
        for n_threads in (1, 2, 3, 4):
            assert np.array_equal(_native.kernel_attention(queries, keys, values, mask, 0.2, half, n_threads), alone)


def example() -> dict[str, Floats]:
    mask = causal(23, 600)
    mask[:, 70:90] = -np.inf
    values = drawn(600, 2, 48, 3)
    found = _native.kernel_attention(drawn(23, 6, 32, 1) * 4, drawn(600, 2, 32, 2), values, mask, 0.2)
    return {"attention": np.asarray(found)}


@pytest.mark.parametrize("level", instruction_sets.LEVELS)
def test_every_instruction_set_gives_the_same_bits(level: str, tmp_path: Path) -> None:
    there = instruction_sets.results(level, "example()", "test_native_attention", tmp_path)
    for name, mine in example().items():
        assert np.array_equal(there[name], mine), name


def test_a_token_that_sees_nothing_gets_zeros() -> None:
    mask = np.full((3, 70), -np.inf, np.float32)
    mask[1, 69] = 0
    values = drawn(70, 1, 16, 3)
    found = _native.kernel_attention(drawn(3, 1, 16, 1), drawn(70, 1, 16, 2), values, mask, 0.25, False)
    assert np.array_equal(found[[0, 2]], np.zeros((2, 1, 16))) and np.array_equal(found[1], values[69])


def test_large_scores_do_not_overflow() -> None:
    queries, keys = drawn(4, 1, 32, 1) * 1000, drawn(80, 1, 32, 2) * 100
    values, mask = drawn(80, 1, 32, 3), causal(4, 80)
    found = _native.kernel_attention(queries, keys, values, mask, 1.0, False)
    expected = reference(queries, keys, values, mask, 1.0, False)
    assert np.isfinite(found).all() and np.abs(found - expected).max() < 0.05


def test_what_is_not_a_number_stays_visible_and_in_its_row() -> None:
    queries, keys, values = drawn(4, 1, 32, 1), drawn(80, 1, 32, 2), drawn(80, 1, 32, 3)
    plain = _native.kernel_attention(queries, keys, values, causal(4, 80), 1.0)
    queries[2, 0, 5] = np.nan
    found = _native.kernel_attention(queries, keys, values, causal(4, 80), 1.0)
    assert np.isnan(found[2]).all() and np.array_equal(found[[0, 1, 3]], plain[[0, 1, 3]])


def test_what_the_kernel_does_not_take_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="do not take this attention"):
        _native.kernel_attention(drawn(1, 1, 24, 1), drawn(8, 1, 24, 2), drawn(8, 1, 24, 3), causal(1, 8), 1.0)
    with pytest.raises(OptionError, match="do not fit"):
        _native.kernel_attention(drawn(1, 1, 32, 1), drawn(8, 1, 16, 2), drawn(8, 1, 16, 3), causal(1, 8), 1.0)
    with pytest.raises(OptionError, match="multiple"):
        _native.kernel_attention(drawn(1, 3, 32, 1), drawn(8, 2, 32, 2), drawn(8, 2, 32, 3), causal(1, 8), 1.0)


@pytest.mark.parametrize(
    ("arch", "outtype"), [("llama", "q4_0"), ("llama", "q8_0"), ("qwen3", "q8_0"), ("llama", "bf16")]
)
def test_how_a_text_is_split_into_passes_changes_nothing(tmp_path: Path, arch: str, outtype: str) -> None:
    """A reused prefix, text that was prefilled in parts, and blocks in groups: the same bits as one pass."""
    if outtype not in {name.lower() for name in _native.kernels().types}:
        pytest.skip(f"no kernel of ours for {outtype}")
    model = _native.Model(str(make_model(tmp_path / "model.gguf", arch=arch, outtype=outtype, n_head=2, n_head_kv=1)))
    options = _native.SessionOptions(n_ctx=512, n_threads=2)
    layout = _native.Blocks(begin_id=10, memory_id=11, end_id=12, size=2, count=4)
    session = _native.Session(model, layout, options)
    question = [int(token) for token in np.random.default_rng(1).integers(20, 200, 61)]
    whole = [readout.logits for readout in session.think([question], 4, logits=True)[0]]
    for cuts in ([30], [1, 2, 55]):
        session.reset()
        for cut in cuts:
            session.prefill(question[:cut])
        again = session.think([question], 4, logits=True)[0]
        assert all(np.array_equal(a, b.logits) for a, b in zip(whole, again, strict=True))
    session.reset()
    groups = [*session.think([question], 1, logits=True)[0], *session.extend(3, logits=True)[0]]
    groups += session.extend(4, logits=True)[0]
    assert all(np.array_equal(a, b.logits) for a, b in zip(whole, groups, strict=True))


def test_fewer_threads_than_were_asked_for(tmp_path: Path) -> None:
    """OpenMP may give fewer than memory is planned for: here 2, which do not share a head's keys, of 5, which do."""
    model = make_model(tmp_path / "model.gguf", n_embd=128, n_head=8, n_head_kv=4, outtype="q8_0")
    code = """import sys
from rim_edge import _native
options = _native.SessionOptions(n_ctx=1024, n_threads=5)
session = _native.Session(_native.Model(sys.argv[1]), None, options)
session.think([[20 + i % 150 for i in range(600)]], 0)
states = [session.advance([(0, 0)], [30 + i])[0] for i in range(3)]
print([(state.token, state.probability, state.entropy) for state in states])
"""
    answers = []
    for limit in ("2", "5"):
        command = [sys.executable, "-c", code, str(model)]
        done = subprocess.run(
            command,
            env={**os.environ, "OMP_THREAD_LIMIT": limit},
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        answers.append(done.stdout)
    assert answers[0] == answers[1] != ""
