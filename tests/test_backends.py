"""Both back ends behind one protocol: the same tests against each, and each against the other on the same weights."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_shapes import make_onnx
from shapes import default_spec, make_model, random_probe, token_id

import rim_edge
from rim_edge.backends import open_backend
from rim_edge.backends.base import Backend, BackendSession, LoadOptions, Sampling
from rim_edge.errors import BusyError, CancelledError, ClosedError, ContextFullError, OptionError

OPTIONS = LoadOptions(n_threads=1, cache_type="f32", flash_attention="off")
GREEDY = Sampling()
PREFIX = " Tom has"
TOLERANCE = 1e-3  # of logits and states between the back ends and between splits

Pair = dict[str, Path]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    """The same models as GGUF and as ONNX: with and without an answer prefix."""
    folder = tmp_path_factory.mktemp("backends")
    made = {}
    for name, prefix in (("bare", None), ("prefix", PREFIX)):
        spec = default_spec(answer_pattern=r"([a-z])", trained_direct=True, answer_prefix=prefix, **random_probe(8, 64))
        source = make_model(folder / f"{name}.gguf", spec=spec, chat_template=name == "bare")
        made[name] = {"gguf": source, "onnx": make_onnx(source, folder / f"{name}-onnx")}
    return made


@pytest.fixture(scope="module", params=["gguf", "onnx"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def backends(paths: dict[str, Pair], kind: str) -> Iterator[dict[str, Backend]]:
    opened = {name: open_backend(pair[kind], OPTIONS) for name, pair in paths.items()}
    yield opened
    for backend in opened.values():
        backend.close()


@pytest.fixture
def backend(backends: dict[str, Backend]) -> Backend:
    return backends["bare"]


def text(length: int, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, 256, length)]


def open_session(backend: Backend, n_cells: int = 1024, n_lanes: int = 1) -> BackendSession:
    return backend.open(n_cells, n_lanes, blocks=True)


def rows(states: Any) -> Any:
    return np.stack([state.logits for state in states])


# ---- the loop --------------------------------------------------------------------------------------------------------


def test_readouts_equal_plain_runs_of_the_same_tokens(backend: Backend) -> None:
    question = text(30)
    spec = backend.spec
    assert spec is not None
    (coupled,) = open_session(backend).think([question], 8, hidden=True, logits=True)
    assert [state.block for state in coupled] == list(range(1, 9))
    plain = open_session(backend)
    for state in coupled:
        (direct,) = plain.think([question + list(spec.block_tokens) * state.block], 0, hidden=True, logits=True)
        assert np.abs(direct[0].logits - state.logits).max() < TOLERANCE
        assert np.abs(direct[0].hidden - state.hidden).max() < TOLERANCE
        assert direct[0].token == state.token and direct[0].entropy == pytest.approx(state.entropy, abs=1e-4)
        assert direct[0].probability == pytest.approx(state.probability, abs=1e-4)


def test_extending_gives_the_readouts_of_one_pass(backend: Backend) -> None:
    question = text(25)
    (whole,) = open_session(backend).think([question], 8, logits=True)
    session = open_session(backend)
    (first,) = session.think([question], 2, logits=True)
    before = session.decode([(0, 2)], GREEDY, 5)
    (rest,) = session.extend(8, logits=True)
    assert [state.block for state in rest] == [3, 4, 5, 6, 7, 8] and session.counts.slots == 24
    assert np.abs(rows([*first, *rest]) - rows(whole)).max() < TOLERANCE
    assert list(session.decode([(0, 2)], GREEDY, 5)[0].tokens) == list(before[0].tokens)
    with pytest.raises(OptionError):
        session.extend(8)


def test_only_new_text_is_evaluated_and_blocks_leave_no_trace(backend: Backend) -> None:
    question, more = text(40), text(10, seed=1)
    session = open_session(backend)
    session.prefill(question[:25])
    assert session.cached() == 25
    session.think([question], 8)
    assert (session.counts.reused, session.counts.text, session.counts.slots) == (25, 15, 32)
    session.decode([(0, 8), (0, 3)], GREEDY, 6)
    assert session.cached() == 40
    (again,) = session.think([question + more], 4, logits=True)
    assert (session.counts.reused, session.counts.text) == (40, 10)
    (fresh,) = open_session(backend).think([question + more], 4, logits=True)
    assert np.abs(rows(again) - rows(fresh)).max() < TOLERANCE
    (shorter,) = session.think([question[:20]], 2, logits=True)
    assert (session.counts.reused, session.counts.text) == (20, 0)
    (fresh,) = open_session(backend).think([question[:20]], 2, logits=True)
    assert np.abs(rows(shorter) - rows(fresh)).max() < TOLERANCE
    session.reset()
    assert session.cached() == 0


def test_a_cached_question_can_be_asked_directly(backends: dict[str, Backend]) -> None:
    for backend in backends.values():
        question = text(12)
        (fresh,) = open_session(backend).think([question], 0, hidden=True, logits=True)
        session = open_session(backend)
        session.prefill(question)
        (direct,) = session.think([question], 0, hidden=True, logits=True)
        assert direct[0].block == 0 and np.abs(direct[0].logits - fresh[0].logits).max() < TOLERANCE
        assert np.abs(direct[0].hidden - fresh[0].hidden).max() < TOLERANCE
        (direct,) = session.think([question], 0, logits=True)
        assert np.abs(direct[0].logits - fresh[0].logits).max() < TOLERANCE


def test_every_answer_goes_on_from_its_own_readout(backends: dict[str, Backend]) -> None:
    for backend in backends.values():
        spec, question = backend.spec, text(25)
        assert spec is not None
        session = open_session(backend)
        session.think([question], 5)
        together = session.decode([(0, k) for k in (5, 1, 3, 2, 4)], GREEDY, 12)
        assert [answer.block for answer in together] == [5, 1, 3, 2, 4]
        for answer in together:
            (alone,) = session.decode([(0, answer.block)], GREEDY, 12)
            assert list(alone.tokens) == list(answer.tokens) and alone.text == answer.text
            assert alone.finish == answer.finish and list(alone.logprobs) == pytest.approx(
                list(answer.logprobs), abs=1e-3
            )
            plain = backend.open(1024, 1, blocks=False)
            plain.think([question + list(spec.block_tokens) * answer.block + list(backend.prefix)], 0)
            assert list(plain.decode([(0, 0)], GREEDY, 12)[0].tokens) == list(answer.tokens)


def test_an_answer_prefix_opens_every_readout(backends: dict[str, Backend]) -> None:
    backend, question = backends["prefix"], text(30)
    n_prefix = len(backend.prefix)
    assert n_prefix > 1
    session = open_session(backend)
    (states,) = session.think([question], 4, hidden=True, logits=True)
    assert (session.counts.text, session.counts.slots, session.counts.prefix) == (30, 16, 4 * n_prefix)
    (bare,) = open_session(backends["bare"]).think([question], 4, hidden=True, logits=True)
    for with_prefix, without in zip(states, bare, strict=True):
        assert np.abs(with_prefix.hidden - without.hidden).max() < TOLERANCE  # the state at the block's end
        assert np.abs(with_prefix.logits - without.logits).max() > TOLERANCE
    (more,) = session.extend(6, logits=True)
    (whole,) = open_session(backend).think([question], 6, logits=True)
    assert np.abs(rows([*states, *more]) - rows(whole)).max() < TOLERANCE


def test_lanes_answer_as_if_each_were_alone(backends: dict[str, Backend]) -> None:
    for backend in backends.values():
        prompts = [text(10, 1), text(35, 2), text(1, 3)]
        session = open_session(backend, n_lanes=3)
        lanes = session.think(prompts, 4, logits=True)
        answers = session.decode([(lane, k) for lane in range(3) for k in (4, 2)], GREEDY, 8)
        for lane, prompt in enumerate(prompts):
            single = open_session(backend)
            (alone,) = single.think([prompt], 4, logits=True)
            assert [state.lane for state in lanes[lane]] == [lane] * 4
            assert np.abs(rows(lanes[lane]) - rows(alone)).max() < TOLERANCE
            expected = single.decode([(0, 4), (0, 2)], GREEDY, 8)
            found = [list(answer.tokens) for answer in answers if answer.lane == lane]
            assert found == [list(answer.tokens) for answer in expected]


# ---- limits ----------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_before_any_work(backend: Backend) -> None:
    session = open_session(backend, n_cells=256)
    session.prefill(text(50))
    with pytest.raises(ContextFullError) as caught:
        session.think([text(230)], 8)
    assert (caught.value.needed, caught.value.available) == (230 + 32 + 1, 256)
    assert session.cached() == 50
    with pytest.raises(OptionError):
        session.think([text(5)], 9)
    with pytest.raises(OptionError):
        session.think([[]], 1)
    with pytest.raises(OptionError):
        session.think([[10**6]], 1)
    with pytest.raises(OptionError):
        session.decode([(0, 1)], GREEDY, 1)


def test_a_full_context_ends_the_answer(backend: Backend) -> None:
    session = open_session(backend, n_cells=256)
    session.think([text(220)], 8)
    (answer,) = session.decode([(0, 8)], GREEDY, 100)
    assert answer.finish in ("context", "stop") and len(answer.tokens) <= 5
    again = session.decode([(0, 8)], GREEDY, 3)
    assert list(again[0].tokens) == list(answer.tokens)[:3]


def test_a_long_prompt_runs_in_slices_that_are_counted(paths: dict[str, Pair], kind: str) -> None:
    backend = open_backend(
        paths["bare"][kind], LoadOptions(n_threads=1, cache_type="f32", flash_attention="off", n_batch=256)
    )
    question = text(700)
    seen: list[tuple[int, int]] = []
    (sliced,) = backend.open(1024, 1, blocks=True).think(
        [question], 8, logits=True, progress=lambda done, total: seen.append((done, total))
    )
    assert seen[-1] == (732, 732) and seen == sorted(seen) and len(seen) >= 3
    (whole,) = open_session(open_backend(paths["bare"][kind], OPTIONS)).think([question], 8, logits=True)
    assert np.abs(rows(sliced) - rows(whole)).max() < TOLERANCE
    backend.close()


# ---- choosing tokens -------------------------------------------------------------------------------------------------


def test_stop_strings_callbacks_and_max_tokens(backend: Backend) -> None:
    session = open_session(backend)
    session.think([text(25)], 2)
    pieces: list[str] = []
    (full,) = session.decode([(0, 2)], GREEDY, 30, (), lambda _, piece: pieces.append(piece))
    assert "".join(pieces) == full.text and len(full.logprobs) >= len(full.tokens)
    (short,) = session.decode([(0, 2)], GREEDY, 4)
    assert list(short.tokens) == list(full.tokens)[:4] and short.finish == "length"
    (none,) = session.decode([(0, 2)], GREEDY, 0)
    assert (none.text, none.finish, list(none.tokens)) == ("", "length", [])
    stop = full.text[len(full.text) // 2 :][:3]
    (cut,) = session.decode([(0, 2)], GREEDY, 30, [stop])
    assert cut.finish == "stop" and cut.text == full.text[: full.text.index(stop)]
    (left,) = session.decode([(0, 2)], GREEDY, 30, (), lambda _, piece: False)
    assert left.finish == "callback"
    with pytest.raises(OptionError):
        session.decode([(0, 2)], GREEDY, 1, [""])
    with pytest.raises(OptionError):
        session.decode([(0, 2), (0, 2)], GREEDY, 1)


def test_a_seed_repeats_an_answer_and_memory_tokens_never_come(backend: Backend) -> None:
    spec = backend.spec
    assert spec is not None
    session = open_session(backend)
    session.think([text(25)], 2)
    wild = Sampling(temperature=5.0, top_k=0, top_p=1.0, min_p=0.0, seed=7)
    first, second = ([list(a.tokens) for a in session.decode([(0, 2), (0, 1)], wild, 200)] for _ in range(2))
    assert first == second and first[0] != first[1]
    controls = set(backend.tokenizer.control_texts.values())
    assert not controls & {token for answer in first for token in answer}
    other = Sampling(temperature=5.0, top_k=0, top_p=1.0, min_p=0.0, seed=8)
    assert list(session.decode([(0, 2)], other, 50)[0].tokens) != first[0][:50]
    almost_greedy = Sampling(temperature=1.0, top_k=1, seed=1)
    assert list(session.decode([(0, 2)], almost_greedy, 9)[0].tokens) == list(
        session.decode([(0, 2)], GREEDY, 9)[0].tokens
    )


# ---- stopping --------------------------------------------------------------------------------------------------------


def test_cancel_holds_until_it_is_cleared(backend: Backend) -> None:
    session = open_session(backend)
    question = text(25)
    session.think([question], 4)
    (full,) = session.decode([(0, 4)], GREEDY, 20)

    def stop_at_third(_: int, __: str) -> None:
        pieces.append(1)
        if len(pieces) == 3:
            session.cancel()

    pieces: list[int] = []
    (cut,) = session.decode([(0, 4)], GREEDY, 20, (), stop_at_third)
    assert cut.finish == "cancelled" and full.text.startswith(cut.text) and cut.text
    for call in (lambda: session.prefill(text(5)), lambda: session.think([question], 1), lambda: session.extend(5)):
        with pytest.raises(CancelledError):
            call()
    session.clear_cancel()
    session.think([question], 4)
    assert list(session.decode([(0, 4)], GREEDY, 20)[0].tokens) == list(full.tokens)
    with pytest.raises(CancelledError):
        session.think([text(30, 9)], 4, progress=lambda done, total: False)
    session.think([question], 4)
    assert list(session.decode([(0, 4)], GREEDY, 20)[0].tokens) == list(full.tokens)


def test_one_call_at_a_time(backend: Backend) -> None:
    session = open_session(backend)
    session.think([text(25)], 2)
    found: list[BaseException] = []

    def inside(_: int, __: str) -> bool:
        for call in (session.reset, session.cached, session.close):
            try:
                call()
            except BaseException as error:
                found.append(error)
        return False

    session.decode([(0, 2)], GREEDY, 5, (), inside)
    assert [type(error) for error in found] == [BusyError] * 3
    session.close()
    with pytest.raises(ClosedError):
        session.think([text(5)], 1)
    session.close()


def test_close_stops_the_work_of_another_thread(backend: Backend) -> None:
    session = open_session(backend)
    session.think([text(25)], 8)
    started = threading.Event()
    finished: list[str] = []

    def work() -> None:
        wild = Sampling(temperature=5.0, top_k=0, top_p=1.0, min_p=0.0, seed=3)
        answers = session.decode([(0, k) for k in range(1, 9)], wild, 100_000, (), lambda *_: started.set())
        finished.extend(answer.finish for answer in answers)

    thread = threading.Thread(target=work)
    thread.start()
    started.wait(10)
    session.close()
    thread.join(10)
    assert not thread.is_alive() and finished


def test_sessions_outlive_their_model(paths: dict[str, Pair], kind: str) -> None:
    backend = open_backend(paths["bare"][kind], OPTIONS)
    session = open_session(backend)
    backend.close()
    assert session.think([text(5)], 2)[0][1].block == 2
    session.close()
    with pytest.raises(ClosedError):
        open_session(backend)


# ---- through the Python API ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bare", "prefix"])
def test_both_back_ends_answer_alike(paths: dict[str, Pair], name: str) -> None:
    exact = {"cache_type": "f32", "flash_attention": "off", "n_threads": 1}
    questions = [f"Tom has {n} apples and {n * 7} the many" * (1 + n % 3) for n in range(6)]
    with rim_edge.load(paths[name]["gguf"], **exact) as gguf, rim_edge.load(paths[name]["onnx"], **exact) as onnx:
        assert (gguf.n_ctx, gguf.info.n_vocab, gguf.info.n_embd) == (onnx.n_ctx, onnx.info.n_vocab, onnx.info.n_embd)
        for question in questions:
            for options in (
                {},
                {"blocks": 0},
                {"blocks": 8, "readouts": True},
                {"blocks": "auto"},
                {"select": "vote"},
                {"select": "confidence"},
                {"select": "probe"},
            ):
                left, right = (model.ask(question, max_tokens=12, **options) for model in (gguf, onnx))
                assert left.text == right.text and left.depth == right.depth and left.readout == right.readout
                assert left.tokens == right.tokens and left.finish == right.finish and left.value == right.value
                for a, b in zip(left.readouts, right.readouts, strict=True):
                    assert (a.block, a.top_id, a.top_token, a.text) == (b.block, b.top_id, b.top_token, b.text)
                    assert a.probability == pytest.approx(b.probability, abs=1e-4)
                    assert a.probe == pytest.approx(b.probe, abs=1e-4) if a.probe is not None else b.probe is None
        many = [[answer.text for answer in model.ask_many(questions, max_tokens=8)] for model in (gguf, onnx)]
        assert many[0] == many[1] == [gguf.ask(question, max_tokens=8).text for question in questions]


def test_both_back_ends_chat_alike(paths: dict[str, Pair]) -> None:
    exact = {"cache_type": "f32", "flash_attention": "off", "n_threads": 1}
    heard = []
    for kind in ("gguf", "onnx"):
        with rim_edge.load(paths["bare"][kind], **exact) as model, model.chat(system="the many") as chat:
            turns = []
            for question in ("Tom has apples", "how <|im_end|> many", "and 2"):
                chat.prefill(question[:5])
                pieces = list(chat.stream(question, max_tokens=6))
                assert chat.last is not None and "".join(pieces) == chat.last.text
                turns.append((chat.last.text, chat.last.tokens.prompt, chat.last.tokens.reused > 0))
            heard.append(turns)
    assert heard[0] == heard[1]


def test_both_vocabularies_are_one(paths: dict[str, Pair]) -> None:
    left, right = (open_backend(paths["bare"][kind], OPTIONS).tokenizer for kind in ("gguf", "onnx"))
    assert dict(left.control_texts) == dict(right.control_texts)
    assert (left.bos_id, left.eos_id, left.add_bos, left.chat_template) == (
        right.bos_id, right.eos_id, right.add_bos, right.chat_template,
    )  # fmt: skip
    strings = [
        "",
        " ",
        "the apples",
        "Tom has 12 apples\n\n and é ☃ 🎉",
        "<|rim_begin|> as text <|im_end|>",
        "a  b\t\r\n<b>é",
    ]
    for string in strings:
        for special in (False, True):
            tokens = left.tokenize(string, special)
            assert tokens == right.tokenize(string, special)
            assert left.detokenize(tokens) == right.detokenize(tokens)
    assert right.tokenize("<|im_end|>", True) == [token_id("<|im_end|>")] != right.tokenize("<|im_end|>")
    assert all(left.token_text(token) == right.token_text(token) for token in range(token_id("<|rim_end|>") + 1))
