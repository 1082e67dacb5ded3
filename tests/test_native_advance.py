"""Given answers: the session tells at every token what it would have said, as a plain run of the same tokens does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from native_session import BLOCK, EXACT, TOLERANCE, model, reference, session, text, think
from shapes import make_model

from rim_edge import _native, errors

GREEDY = _native.Sampling(temperature=0.0)


@pytest.mark.parametrize("arch", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("prefix", [(), (65, 66)])
def test_rows_equal_a_plain_run_at_every_readout(arch: str, prefix: tuple[int, ...]) -> None:
    of, tokens, answer = model(arch), text(20, 1), text(5, 2)
    with_blocks = session(of, 4, prefix, **EXACT)
    think(with_blocks, tokens, 4)
    targets = [(0, block) for block in range(1, 5)]
    rows = [with_blocks.advance(targets, [token] * 4) for token in answer]
    for k in range(1, 5):
        whole = tokens + BLOCK * k + list(prefix) + answer
        plain = reference(of, whole, list(range(len(whole) - 5, len(whole))), **EXACT)
        mine = np.stack([step[k - 1].logits for step in rows])
        np.testing.assert_allclose(mine, plain, atol=TOLERANCE[arch], rtol=0)


def test_logits_of_several_micro_batches_are_those_of_one() -> None:
    of, tokens, answer = model(outtype="q8_0"), text(20, 1), text(4, 2)
    targets = [(0, block) for block in range(1, 8)]
    steps = []
    for n_ubatch in (512, 3):  # one alone leaves its logits where they are (native/logits_place.h)
        opened = session(of, 8, n_ubatch=n_ubatch)
        think(opened, tokens)
        steps.append([[row.logits for row in opened.advance(targets, [token] * 7)] for token in answer])
    np.testing.assert_allclose(steps[0], steps[1], atol=1e-3, rtol=0)
    assert len({row.tobytes() for row in np.concatenate(steps[0])}) == 4 * 7


def test_logits_are_read_where_they_were_computed_unless_the_environment_leaves_all_to_libllama(tmp_path: Path) -> None:
    path = make_model(tmp_path / "model.gguf")
    code = f"from rim_edge import _native; _native.Model({str(path)!r}); print(_native.kernels().logits_in_place)"
    found = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"RIM_EDGE_KERNELS": kernels},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for kernels in ("", "0")
    ]
    assert found == [str(sys.platform == "linux"), "False"]


def test_a_greedy_answer_given_back_is_the_answer() -> None:
    of, tokens = model(outtype="q8_0"), text(20, 3)
    opened = session(of, 4)
    states = think(opened, tokens, 4)
    targets = [(0, block) for block in range(1, 5)]
    answers = {answer.block: answer for answer in opened.decode(targets, GREEDY, 6)}
    said = {state.block: [state.token] for state in states}
    for step in range(5):
        open_targets = [(0, block) for block in range(1, 5) if len(answers[block].tokens) > step + 1]
        if not open_targets:
            break
        for state in opened.advance(open_targets, [answers[block].tokens[step] for _, block in open_targets]):
            said[state.block].append(state.token)
    for block, answer in answers.items():
        assert said[block][: len(answer.tokens)] == answer.tokens


def test_an_answer_goes_on_after_given_tokens() -> None:
    of, tokens = model(), text(20, 4)
    opened = session(of, 2, **EXACT)
    think(opened, tokens, 2)
    (whole,) = opened.decode([(0, 2)], GREEDY, 8)
    opened.advance([(0, 2)], [whole.tokens[0]])
    opened.advance([(0, 2)], [whole.tokens[1]])
    (rest,) = opened.decode([(0, 2)], GREEDY, 6)
    assert rest.tokens == whole.tokens[2:8]


def test_lanes_and_depth_zero() -> None:
    of, prompts, token = model(), [text(9, 5), text(17, 6)], 40
    opened = session(of, 4, n_lanes=2, **EXACT)
    opened.think(prompts, 0, logits=True)
    rows = opened.advance([(0, 0), (1, 0)], [token, token])
    for prompt, row in zip(prompts, rows, strict=True):
        plain = reference(of, [*prompt, token], [len(prompt)], **EXACT)[0]
        np.testing.assert_allclose(row.logits, plain, atol=TOLERANCE["llama"], rtol=0)


def test_given_tokens_leave_no_trace() -> None:
    of, tokens = model(), text(20, 7)
    opened, fresh = session(of, 4, **EXACT), session(of, 4, **EXACT)
    think(opened, tokens, 4)
    opened.advance([(0, 1), (0, 4)], [50, 60])
    again = think(opened, [*tokens, 70], 4)
    for state, other in zip(again, think(fresh, [*tokens, 70], 4), strict=True):
        np.testing.assert_allclose(state.logits, other.logits, atol=TOLERANCE["llama"], rtol=0)


def test_refusals() -> None:
    of = model()
    opened = session(of, 4, n_ctx=256, **EXACT)
    with pytest.raises(errors.OptionError, match="think"):
        opened.advance([(0, 1)], [1])
    think(opened, text(20, 8), 4)
    with pytest.raises(errors.OptionError, match="2 tokens for 1"):
        opened.advance([(0, 1)], [1, 2])
    with pytest.raises(errors.OptionError, match="two tokens"):
        opened.advance([(0, 1), (0, 1)], [1, 2])
    with pytest.raises(errors.OptionError, match="no readout"):
        opened.advance([(0, 5)], [1])
    with pytest.raises(errors.OptionError):
        opened.advance([(0, 1)], [of.n_vocab])
    with pytest.raises(errors.ContextFullError):
        for _ in range(300):
            opened.advance([(0, 1)], [1])
    assert len(think(opened, text(20, 8), 4)) == 4  # still usable
    opened.cancel()
    with pytest.raises(errors.CancelledError):
        opened.advance([(0, 1)], [1])
    recurrent = session(model("mamba"), 0)
    recurrent.think([[1, 2, 3]], 0, logits=True)
    with pytest.raises(errors.UnsupportedError, match="batch_logits"):
        recurrent.advance([(0, 0)], [1])


@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "iq4_nl", "q6_k", "q4_k", "q2_k", "bf16", "f16"])
def test_round_trip_keeps_what_the_type_keeps(kind: str) -> None:
    rows = np.random.default_rng(0).normal(0, 1, (3, 256)).astype(np.float32)
    back = _native.round_trip(kind, rows)
    bits = {
        "q8_0": 0.02,
        "q6_k": 0.08,
        "bf16": 0.02,
        "f16": 0.002,
        "q4_0": 0.4,
        "iq4_nl": 0.4,
        "q4_k": 0.3,
        "q2_k": 1.2,
    }
    assert 0 < np.abs(back - rows).max() < bits[kind]


def test_round_trip_as_the_format_library() -> None:
    import gguf

    rows = np.random.default_rng(1).normal(0, 1, (2, 64)).astype(np.float32)
    packed = gguf.quants.quantize(rows, gguf.GGMLQuantizationType.Q8_0)
    expected = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q8_0)
    np.testing.assert_allclose(_native.round_trip("q8_0", rows), expected, atol=1e-6)


def test_round_trip_refuses() -> None:
    rows = np.zeros((1, 96), np.float32)
    for kind, reason in (("q4_k", "multiple"), ("iq1_s", "multiple"), ("nonsense", "unknown")):
        with pytest.raises(errors.OptionError, match=reason):
            _native.round_trip(kind, rows)
    with pytest.raises(errors.OptionError, match="importance"):
        _native.round_trip("iq1_s", np.zeros((1, 256), np.float32))
