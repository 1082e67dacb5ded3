"""The latent loop: readouts against plain runs, the prefix cache, lanes, limits."""

from __future__ import annotations

import sys
from typing import Any

import gguf
import numpy as np
import pytest
from native_session import (
    BLOCK,
    EXACT,
    MEMORY_IDS,
    TOLERANCE,
    block_ends,
    blocks,
    greedy,
    model,
    reference,
    session,
    stack,
    states,
    text,
    think,
)
from process_memory import resident_bytes

from rim_edge import _native
from rim_edge.errors import ClosedError, ContextFullError, OptionError, UnsupportedError

ARCHITECTURES = ("llama", "gpt2", "gemma3")
GREEDY = _native.Sampling()


def same(a: Any, b: Any) -> bool:
    return np.array_equal(np.asarray(a), np.asarray(b))


# ---- one pass against plain runs


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("outtype", ["f32", "f16", "q8_0"])
@pytest.mark.parametrize("length", [1, 45])
def test_every_readout_is_bit_equal_to_a_plain_run_of_the_same_width(arch: str, outtype: str, length: int) -> None:
    tiny, question = model(arch, outtype), text(length)
    readouts = think(session(tiny), question)
    plain = reference(tiny, question + BLOCK * 8, block_ends(length, 8))
    assert same(stack(readouts), plain)
    assert [readout.block for readout in readouts] == list(range(1, 9))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_direct_and_last_readout_alone_are_bit_equal_to_plain_runs(arch: str) -> None:
    tiny, question = model(arch), text(30)
    direct = think(session(tiny), question, 0)
    assert [readout.block for readout in direct] == [0]
    assert same(stack(direct), reference(tiny, question, [29]))
    last = think(session(tiny), question, 3, all_readouts=False)
    assert [readout.block for readout in last] == [3]
    assert same(stack(last), reference(tiny, question + BLOCK * 3, [29 + 12]))


def test_micro_batches_keep_a_long_prompt_bit_equal() -> None:
    tiny, question = model(), text(1500)
    options: dict[str, Any] = {"n_ctx": 2048, "n_ubatch": 512}
    plain = reference(tiny, question + BLOCK * 8, block_ends(1500, 8), **options)
    wide = session(tiny, **options)
    assert same(stack(think(wide, question)), plain)
    assert wide.counts.passes == 1
    split = session(tiny, n_batch=1024, **options)
    assert same(stack(think(split, question)), plain)
    assert split.counts.passes == 2
    seen: list[tuple[int, int]] = []
    watched = session(tiny, **options)
    readouts = watched.think([question], 8, logits=True, progress=lambda done, total: seen.append((done, total)))[0]
    assert same(stack(readouts), plain)
    assert seen == [(512, 1532), (1024, 1532), (1532, 1532)]


def test_blocks_that_do_not_fit_one_batch_are_split() -> None:
    tiny, question = model(), text(20)
    small = session(tiny, n_batch=16, n_ubatch=16, **EXACT)
    plain = reference(tiny, question + BLOCK * 8, block_ends(20, 8), **EXACT)
    readouts = think(small, question, hidden=True)
    assert small.counts.passes == 4
    assert np.abs(stack(readouts) - plain).max() < 1e-4
    whole = think(session(tiny, **EXACT), question, hidden=True)
    assert np.abs(states(readouts) - states(whole)).max() < 1e-4


# ---- the answer prefix


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_an_answer_prefix_opens_every_readout(arch: str) -> None:
    tiny, question, prefix = model(arch), text(40), text(5, seed=9)
    with_prefix = session(tiny, prefix=prefix, **EXACT)
    readouts = think(with_prefix, question, hidden=True)
    assert (with_prefix.counts.text, with_prefix.counts.slots, with_prefix.counts.prefix) == (40, 32, 40)
    for k, readout in enumerate(readouts, 1):
        tokens = question + BLOCK * k + prefix
        plain = reference(tiny, tokens, [len(tokens) - 1], **EXACT)[0]
        (logits,) = stack([readout])
        assert np.abs(logits - plain).max() < TOLERANCE[arch]
        assert logits.argmax() == plain.argmax()
    bare = think(session(tiny, **EXACT), question, hidden=True)
    # the state is that of the block's end token, not of the prefix
    assert np.abs(states(readouts) - states(bare)).max() < TOLERANCE[arch]
    direct = think(with_prefix, question, 0, hidden=True)
    plain = reference(tiny, question + prefix, [44], **EXACT)
    assert np.abs(stack(direct) - plain).max() < TOLERANCE[arch]
    assert (
        np.abs(direct[0].hidden - think(session(tiny, **EXACT), question, 0, hidden=True)[0].hidden).max()
        < TOLERANCE[arch]
    )


def test_answers_continue_after_their_own_blocks_and_prefix() -> None:
    tiny, question, prefix = model(), text(25), text(3, seed=4)
    s = session(tiny, prefix=prefix, **EXACT)
    think(s, question, 4)
    for answer in s.decode([(0, k) for k in (4, 1, 3)], GREEDY, 6):
        assert answer.tokens == greedy(tiny, question + BLOCK * answer.block + prefix, 6)


# ---- what a readout says


def test_token_probability_and_entropy_are_those_of_the_softmax() -> None:
    for seed in range(3):
        for readout in think(session(model(seed=seed)), text(20)):
            logits = stack([readout])[0].astype(np.float64)
            p = np.exp(logits - logits.max())
            p /= p.sum()
            assert readout.probability == pytest.approx(p[readout.token], rel=1e-5)
            assert readout.entropy == pytest.approx(-(p * np.log(p)).sum(), rel=1e-5)


def test_the_top_token_is_never_a_memory_token() -> None:
    found = 0
    for seed in range(40):
        for readout in think(session(model(n_embd=32, seed=seed)), text(3, seed)):
            assert readout.token not in MEMORY_IDS
            found += int(stack([readout]).argmax()) in MEMORY_IDS
    assert found > 0


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_hidden_states_are_what_the_output_matrix_reads(arch: str) -> None:
    tiny = model(arch)
    matrix = next(t.data for t in gguf.GGUFReader(tiny.path).tensors if t.name == "output.weight")
    lanes = session(tiny, n_lanes=2, n_ubatch=32)
    result = lanes.think([text(30), text(45, 1)], 4, hidden=True, logits=True)
    for readout in [*result[0], *result[1], *think(lanes, text(50), 0, hidden=True)]:
        (hidden,), (logits,) = states([readout]), stack([readout])
        assert hidden.shape == (tiny.n_embd,)
        assert np.abs(matrix @ hidden - logits).max() < 1e-3
    assert think(lanes, text(50), 2)[0].hidden is None


# ---- the prefix cache


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_only_new_text_is_evaluated(arch: str) -> None:
    tiny, first = model(arch), text(60)
    second = first[:50] + text(30, 1)
    s = session(tiny, **EXACT)
    think(s, first)
    assert (s.counts.reused, s.counts.text, s.counts.slots, s.counts.passes) == (0, 60, 32, 1)
    assert s.cached() == 60
    s.decode([(0, 8)], GREEDY, 5)
    again = think(s, second)
    assert (s.counts.reused, s.counts.text, s.counts.slots) == (50, 30, 32)
    plain = reference(tiny, second + BLOCK * 8, block_ends(80, 8), **EXACT)
    assert np.abs(stack(again) - plain).max() < TOLERANCE[arch]
    assert same(stack(again).argmax(1), plain.argmax(1))
    think(s, second)
    assert (s.counts.reused, s.counts.text, s.counts.slots) == (80, 0, 32)
    think(s, second, 0)
    assert (s.counts.reused, s.counts.text, s.counts.slots) == (79, 1, 0)


def test_prefill_makes_the_cache_hold_exactly_the_text() -> None:
    tiny, question = model(), text(40)
    s = session(tiny, **EXACT)
    s.prefill(question[:10])
    s.prefill(question[:30])
    assert (s.counts.reused, s.counts.text, s.cached()) == (10, 20, 30)
    s.prefill(question[:20])
    assert (s.counts.reused, s.counts.text, s.counts.passes, s.cached()) == (20, 0, 0, 20)
    readouts = think(s, question)
    assert (s.counts.reused, s.counts.text) == (20, 20)
    plain = reference(tiny, question + BLOCK * 8, block_ends(40, 8), **EXACT)
    assert np.abs(stack(readouts) - plain).max() < 1e-4
    s.prefill([])
    assert s.cached() == 0
    s.prefill(question)
    s.reset()
    assert s.cached() == 0


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_extending_gives_the_readouts_of_the_deeper_run(arch: str) -> None:
    tiny, question, prefix = model(arch), text(33), text(2, seed=5)
    s = session(tiny, prefix=prefix, **EXACT)
    plain = think(session(tiny, prefix=prefix, **EXACT), question)
    groups = [*think(s, question, 2), *s.extend(3, logits=True)[0]]
    assert (s.counts.slots, s.counts.text, s.counts.passes) == (4, 0, 1)
    s.decode([(0, 1), (0, 3)], GREEDY, 3)
    groups += s.extend(8, logits=True)[0]
    assert [readout.block for readout in groups] == list(range(1, 9))
    assert np.abs(stack(groups) - stack(plain)).max() < TOLERANCE[arch]
    for answer in s.decode([(0, 1), (0, 8)], GREEDY, 4):
        assert answer.tokens == greedy(tiny, question + BLOCK * answer.block + prefix, 4)


def test_direct_can_be_extended() -> None:
    tiny, question = model(), text(33)
    s = session(tiny, **EXACT)
    think(s, question, 0)
    deeper = s.extend(4, logits=True)[0]
    plain = reference(tiny, question + BLOCK * 4, block_ends(33, 4), **EXACT)
    assert np.abs(stack(deeper) - plain).max() < 1e-4


# ---- lanes


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_lanes_do_not_see_each_other(arch: str) -> None:
    tiny = model(arch)
    questions = [text(20 + 7 * i, seed=i) for i in range(4)]
    s = session(tiny, n_lanes=5, **EXACT)
    s.prefill(text(11, seed=8), lane=4)
    result = s.think(questions, 8, logits=True)
    assert s.counts.passes == 1
    answers = s.decode([(lane, 8) for lane in range(4)], GREEDY, 5)
    for lane, question in enumerate(questions):
        plain = reference(tiny, question + BLOCK * 8, block_ends(len(question), 8), **EXACT)
        assert np.abs(stack(result[lane]) - plain).max() < TOLERANCE[arch]
        assert answers[lane].tokens == greedy(tiny, question + BLOCK * 8, 5)
    assert [s.cached(lane) for lane in range(5)] == [20, 27, 34, 41, 11]
    again = s.think([questions[1] + [7]], 2, first_lane=1, logits=True)[0]
    assert (s.counts.reused, s.counts.text) == (27, 1)
    plain = reference(tiny, [*questions[1], 7] + BLOCK * 2, block_ends(28, 2), **EXACT)
    assert np.abs(stack(again) - plain).max() < TOLERANCE[arch]
    s.reset(1)
    assert [s.cached(lane) for lane in range(5)] == [20, 0, 34, 41, 11]


def test_other_lanes_make_room_when_it_is_needed() -> None:
    s = session(model(), n_ctx=256, n_lanes=2)
    s.prefill(text(150), lane=0)
    think_in_one = s.think([text(200)], 8, first_lane=1)
    assert len(think_in_one[0]) == 8
    assert [s.cached(lane) for lane in range(2)] == [0, 200]


# ---- models that can do less


def test_plain_sessions_answer_directly() -> None:
    tiny, question = model(), text(31)
    s = session(tiny, 0, **EXACT)
    assert same(stack(think(s, question, 0)), reference(tiny, question, [30], **EXACT))
    assert s.decode([(0, 0)], GREEDY, 5)[0].tokens == greedy(tiny, question, 5)
    with pytest.raises(OptionError, match=r"0\.\.0"):
        think(s, question, 1)


def test_recurrent_models_answer_directly_and_keep_what_can_be_kept() -> None:
    tiny, question = model("mamba", seed=1), text(31)
    with pytest.raises(UnsupportedError, match="recurrent"):
        session(tiny)
    s = session(tiny, 0, n_lanes=2)
    first = think(s, question, 0, hidden=True)
    assert same(stack(first), reference(tiny, question, [30]))
    answers = [s.decode([(0, 0)], GREEDY, 5)[0].tokens for _ in range(2)]
    assert answers[0] == answers[1] == greedy(tiny, question, 5)
    longer = [*question, *answers[0], 65, 66]
    assert np.abs(stack(think(s, longer, 0)) - reference(tiny, longer, [len(longer) - 1])).max() < 1e-3
    assert (s.counts.reused, s.counts.text) == (31, len(longer) - 31)
    shorter = longer[:20]
    assert same(stack(think(s, shorter, 0)), reference(tiny, shorter, [19]))
    assert (s.counts.reused, s.counts.text) == (0, 20)
    both = s.think([question, shorter], 0, logits=True)
    assert [s.decode([(lane, 0)], GREEDY, 4)[0].tokens for lane in (0, 1)] == [
        greedy(tiny, question, 4),
        greedy(tiny, shorter, 4),
    ]
    assert same(stack(both[1]), reference(tiny, shorter, [19]))


# ---- limits and wrong use


def test_a_full_context_is_refused_before_any_work() -> None:
    s = session(model(), n_ctx=256)
    think(s, text(100))
    for call in (lambda: think(s, text(240)), lambda: s.prefill(text(257))):
        with pytest.raises(ContextFullError) as caught:
            call()
        assert caught.value.available == 256 < caught.value.needed
        assert s.cached() == 100
    assert len(think(s, text(223))) == 8


def test_a_learned_position_table_is_a_limit() -> None:
    tiny = model("gpt2", n_ctx=64)
    s = session(tiny, n_ctx=256)
    with pytest.raises(ContextFullError, match="64"):
        think(s, text(40))
    think(s, text(20), 8)
    answer = s.decode([(0, 8)], GREEDY, 100)[0]
    assert answer.finish in ("context", "stop") and len(answer.tokens) <= 13


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.think([[]], 1), "at least one token"),
        (lambda s: s.think([[1]], 9), r"0\.\.8"),
        (lambda s: s.think([[1]], -1), r"0\.\.8"),
        (lambda s: s.think([[1], [2]], 1), "2 prompts"),
        (lambda s: s.think([[1]], 1, first_lane=1), "lane 1"),
        (lambda s: s.think([[100_000]], 1), "100000"),
        (lambda s: s.prefill([-1]), "-1"),
        (lambda s: s.prefill([1], lane=3), "lane 3"),
        (lambda s: s.extend(2), "think"),
        (lambda s: s.decode([(0, 1)], GREEDY, 1), "think"),
    ],
)
def test_wrong_use_is_named(call: Any, message: str) -> None:
    s = session(model())
    with pytest.raises(OptionError, match=message):
        call(s)


def test_options_are_checked() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"n_lanes": 33}, "n_lanes"),
        ({"n_lanes": 0}, "n_lanes"),
        ({"n_ctx": 0}, "n_ctx"),
        ({"cache_type": "q3"}, "q8_0"),
        ({"flash_attention": "yes"}, "auto"),
        ({"cache_type": "q8_0", "flash_attention": "off"}, "flash attention"),
    ]
    for options, message in wrong:
        with pytest.raises(OptionError, match=message):
            session(model(), **options)
    for count in (0, 257):
        with pytest.raises(OptionError, match=r"1\.\.256"):
            _native.Session(model(), blocks(count), _native.SessionOptions())


def test_sizes_are_reported() -> None:
    s = session(model(), n_ctx=300)
    assert s.n_ctx == 512
    head = 64 // 4
    assert s.memory["cache"] == 512 * 2 * (2 * head) * 2 * 2  # cells, layers, key-value width, keys and values, bytes
    assert s.memory["compute"] > 0


@pytest.mark.parametrize("n_threads", [1, 3])
def test_what_is_said_of_a_row_belongs_to_it_however_many_threads_read_the_rows(n_threads: int) -> None:
    tiny, lanes = model(), 3
    s = session(tiny, n_threads=n_threads, n_lanes=lanes, n_ctx=2048)
    states = [state for lane in s.think([text(20, lane) for lane in range(lanes)], 8, logits=True) for state in lane]
    states += s.advance([(lane, block) for lane in range(lanes) for block in (2, 8)], [97 + i for i in range(6)])
    assert len(states) == lanes * 8 + 6
    banned = [token for token in tiny.control_ids if not tiny.is_eog(token)]
    for state in states:
        logits = np.asarray(state.logits, dtype=np.float64)
        p = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        allowed = logits.copy()
        allowed[banned] = -np.inf
        assert state.token == int(allowed.argmax())
        assert state.probability == pytest.approx(p[state.token], rel=1e-5)
        assert state.entropy == pytest.approx(-(p * np.log(p)).sum(), rel=1e-5)
    answers = s.decode([(lane, block) for lane in range(lanes) for block in (2, 8)], GREEDY, 5)
    for answer, state in zip(answers, states[-6:], strict=True):
        first = np.asarray(state.logits, dtype=np.float64)
        of_first = first[answer.tokens[0]] - first.max() - np.log(np.exp(first - first.max()).sum())
        assert answer.logprobs[0] == pytest.approx(of_first, rel=1e-5)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere libllama fills a new cache itself")
def test_a_cache_takes_memory_as_it_fills() -> None:
    wide = model(n_embd=512, n_layer=2, n_head=8, n_head_kv=8)
    small = think(session(wide, n_ctx=512), text(100))
    for _ in range(2):  # the second one may get memory that the first one has written
        before = resident_bytes()
        s = session(wide, n_ctx=1 << 15)
        assert s.memory["cache"] == 128 << 20
        assert same(stack(think(s, text(100))), stack(small))
        assert resident_bytes() - before < s.memory["cache"] // 4
        s.close()


def test_closing() -> None:
    s = session(model())
    think(s, text(5))
    s.close()
    s.close()
    assert s.closed
    for call in (lambda: think(s, text(5)), lambda: s.cached(), lambda: s.release(), lambda: s.reset()):
        with pytest.raises(ClosedError):
            call()


def test_quantized_caches_work() -> None:
    s = session(model(n_embd=128), cache_type="q8_0")
    exact = think(session(model(n_embd=128), **EXACT), text(20))
    assert np.abs(stack(think(s, text(20))) - stack(exact)).max() < 1.0
