"""The native Model: facts, tokenizer, loading with progress, closing, and its log."""

from __future__ import annotations

import gc
import logging
import resource
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from process_memory import resident_bytes
from rim_edge._native import Model
from shapes import (
    ARCHITECTURES,
    CHAT_TEMPLATE,
    CONTROL_TEXTS,
    END_OF_TEXT,
    N_VOCAB,
    RECURRENT,
    TURN_END,
    WORDS,
    make_model,
    token_id,
)

from rim_edge import _native
from rim_edge.errors import CancelledError, ClosedError, ModelFileError, OptionError, UnsupportedError
from rim_edge.spec import BEGIN_TEXT


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "llama.gguf", chat_template=True)


@pytest.fixture(scope="module")
def model(path: Path) -> Model:
    return Model(str(path))


# ---- facts -----------------------------------------------------------------------------------------------------------


def test_facts(model: Model, path: Path) -> None:
    assert (model.path, model.architecture, model.vocab_type) == (str(path), "llama", "bpe")
    assert (model.n_vocab, model.n_embd, model.n_layer) == (N_VOCAB, 64, 2)
    assert (model.n_head, model.n_head_kv, model.n_ctx_train, model.n_swa) == (4, 2, 2048, 0)
    assert model.size_bytes == 4 * model.n_params
    assert "F32" in model.description
    assert model.devices[-1] == "CPU"
    assert model.chat_template == CHAT_TEMPLATE


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("outtype", ["f32", "q8_0"])
def test_every_shape_loads(tmp_path: Path, arch: str, outtype: str) -> None:
    model = Model(make_model(tmp_path / "m.gguf", arch, outtype=outtype))
    assert model.architecture == arch
    assert model.coupled == (arch != RECURRENT)
    assert ("recurrent" in model.coupled_reason) == (arch == RECURRENT)
    assert model.has_decoder
    assert model.n_swa == (16 if arch == "gemma3" else 0)
    assert model.chat_template is None


def test_special_tokens(model: Model) -> None:
    end = token_id(END_OF_TEXT)
    assert (model.bos_id, model.eos_id, model.add_bos) == (end, end, False)
    assert model.control_ids == [token_id(text) for text in CONTROL_TEXTS]
    assert model.is_eog(end) and model.is_eog(token_id(TURN_END))
    assert not model.is_eog(token_id(BEGIN_TEXT))
    assert model.token_text(token_id(BEGIN_TEXT)) == BEGIN_TEXT.encode()
    assert model.token_piece(token_id(BEGIN_TEXT)) == b""
    assert model.token_piece(token_id(" apples")) == b" apples"


@pytest.mark.parametrize("token", [-1, N_VOCAB, 2**31 - 1])
def test_tokens_outside_the_vocabulary(model: Model, token: int) -> None:
    for call in (model.token_text, model.token_piece, model.is_eog):
        with pytest.raises(OptionError, match="outside the vocabulary of"):
            call(token)
    with pytest.raises(OptionError):
        model.detokenize([0, token])


# ---- tokenizer -------------------------------------------------------------------------------------------------------


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_the_round_trip(model: Model, text: str) -> None:
    assert model.detokenize(model.tokenize(text)) == text.encode()


def test_control_texts_are_plain_text_unless_asked(model: Model) -> None:
    for text in CONTROL_TEXTS:
        tokens = model.tokenize(f"a{text}b")
        assert not set(tokens) & set(model.control_ids)
        assert model.detokenize(tokens) == f"a{text}b".encode()
        assert token_id(text) in model.tokenize(f"a{text}b", parse_special=True)


def test_words_of_the_vocabulary(model: Model) -> None:
    assert all(model.tokenize(word) == [token_id(word)] for word in WORDS if not word[-1].isdigit())


def test_odd_texts(model: Model) -> None:
    assert model.tokenize("") == []
    assert model.detokenize([]) == b""
    assert model.detokenize(model.tokenize("a\0b\0")) == b"a\0b\0"
    with pytest.raises(OptionError, match="surrogates"):
        model.tokenize("\ud800")


@pytest.mark.parametrize("pre", ["smollm", "llama-bpe", "default", "deepseek-v3"])
def test_long_texts(tmp_path: Path, pre: str) -> None:
    model = Model(make_model(tmp_path / "m.gguf", metadata={"tokenizer.ggml.pre": pre}, n_layer=1))
    for text in ("Tom has 12 apples. " * 8_000, "x" * 100_000, " " * 100_000, "1" * 100_000, "é" * 100_000):
        assert model.detokenize(model.tokenize(text)) == text.encode()


def test_spm_vocabulary(tmp_path: Path) -> None:
    model = Model(make_model(tmp_path / "m.gguf", vocab="spm", n_layer=1))
    assert (model.vocab_type, model.add_bos, model.bos_id, model.eos_id) == ("spm", True, 1, 2)
    assert 1 not in model.tokenize("the cat")
    for text in ("the cat", "€ 5\n", "a\0b"):
        assert model.detokenize(model.tokenize(text)).decode() == " " + text  # the space that SPM puts in front


def test_vocabulary_only(path: Path) -> None:
    model = Model(path, vocab_only=True)
    assert model.tokenize(" apples") == [token_id(" apples")]


def test_model_without_tokenizer(tmp_path: Path) -> None:
    changes = {"tokenizer.ggml.model": "none", "llama.vocab_size": N_VOCAB}
    model = Model(make_model(tmp_path / "m.gguf", metadata=changes))
    assert model.vocab_type == "none"
    with pytest.raises(UnsupportedError, match="no tokenizer"):
        model.tokenize("a")


# ---- loading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vocab_only", [False, True])
def test_progress(path: Path, vocab_only: bool) -> None:
    seen: list[float] = []
    Model(path, vocab_only=vocab_only, progress=seen.append)
    assert seen == sorted(seen) and seen[-1] == 1.0 and seen[0] >= 0


def test_loading_can_be_cancelled(path: Path) -> None:
    with pytest.raises(CancelledError, match="loading was cancelled"):
        Model(path, progress=lambda fraction: False)
    Model(path)


def test_an_exception_in_progress_is_raised(path: Path) -> None:
    class Odd(Exception):
        pass

    def fail(fraction: float) -> None:
        raise Odd(f"at {fraction}")

    with pytest.raises(Odd, match="at"):
        Model(path, progress=fail)
    with pytest.raises(KeyboardInterrupt):
        Model(path, progress=lambda fraction: (_ for _ in ()).throw(KeyboardInterrupt))


@pytest.mark.parametrize("use_mmap", [False, True])
def test_mmap(tmp_path: Path, use_mmap: bool) -> None:
    path = make_model(tmp_path / "m.gguf")
    model = Model(path, use_mmap=use_mmap)
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert (str(path) in maps.read_text()) == use_mmap
    model.close()


def test_paths(tmp_path: Path) -> None:
    for name in ("with space", "é\U0001f600", "-dash"):
        path = make_model(tmp_path / f"{name}.gguf", n_layer=1)
        assert Model(path).path == str(path)
        assert Model(str(path).encode()).path == str(path)
    with pytest.raises(TypeError):
        Model(5)  # type: ignore[arg-type]


def test_close(tmp_path: Path) -> None:
    path = make_model(tmp_path / "m.gguf")
    model = Model(path)
    assert not model.closed
    model.close()
    model.close()
    assert (model.closed, model.path) == (True, str(path))
    for use in (lambda: model.n_vocab, lambda: model.tokenize("a"), lambda: model.coupled):
        with pytest.raises(ClosedError, match="closed"):
            use()
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(path) not in maps.read_text()


def test_loading_many_times_leaks_nothing(path: Path) -> None:
    for _ in range(20):
        Model(path).close()
    gc.collect()
    before = resident_bytes()
    for _ in range(200):
        Model(path).close()
        with pytest.raises(ModelFileError):
            Model("/nonexistent.gguf")
    gc.collect()
    assert resident_bytes() - before < 2000 * resource.getpagesize()  # 40 KiB a load would be a leak


def test_loading_releases_the_interpreter(path: Path) -> None:
    """Other threads run while a model loads, and several may load at once."""
    ticks = 0
    stop = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not stop.is_set():
            ticks += 1
            time.sleep(0.0005)

    failures: list[BaseException] = []

    def load() -> None:
        try:
            for _ in range(20):
                Model(path).tokenize("Tom has 5 apples")
        except BaseException as error:
            failures.append(error)

    ticker = threading.Thread(target=tick)
    loaders = [threading.Thread(target=load) for _ in range(4)]
    for thread in (ticker, *loaders):
        thread.start()
    for thread in loaders:
        thread.join()
    stop.set()
    ticker.join()
    assert failures == []
    assert ticks > 5


# ---- log -------------------------------------------------------------------------------------------------------------


def test_log_lines(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="rim_edge.llama"):
        Model(path)
    lines = [record.getMessage() for record in caplog.records]
    assert any(str(path) in line for line in lines)
    assert not any("\n" in line for line in lines)


def test_the_reason_of_a_refusal_is_logged_as_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = make_model(tmp_path / "m.gguf", metadata={"general.architecture": "nonesuch"})
    with caplog.at_level(logging.ERROR, logger="rim_edge.llama"), pytest.raises(ModelFileError):
        Model(path)
    assert any("nonesuch" in record.getMessage() and record.levelno == logging.ERROR for record in caplog.records)


def test_a_failing_log_callback_does_no_harm(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", seen.append)
    try:
        _native.set_log_callback(lambda level, line: 1 / 0)
        assert Model(path).n_vocab == N_VOCAB
    finally:
        from rim_edge import _library

        _library.attach(_native)
    assert seen
