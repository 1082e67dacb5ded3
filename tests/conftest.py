"""Settings of all tests."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# train/ and convert/ are tested from the checkout; last, so that an installed rim_edge comes before the checkout's
sys.path.append(str(Path(__file__).resolve().parents[1]))

import rim_edge
from tests.exact import EXACT
from tests.shapes import default_spec, make_model, random_probe

settings.register_profile("any-machine", deadline=None)  # speed lives in bench/
settings.load_profile("any-machine")


@pytest.fixture(scope="session", autouse=True)
def elsewhere() -> Iterator[None]:
    """Run outside of the checkout's root: ``python -c`` puts the working folder first, and the rim_edge there has no
    extension module where a wheel is installed."""
    start = Path.cwd()
    os.chdir(Path(__file__).parent)
    yield
    os.chdir(start)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the model files of one module's tests."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def rim_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RiM model that stands alone with each question: it can do every selection, and 0 blocks."""
    spec = default_spec(answer_pattern=r"([a-z])", trained_direct=True, **random_probe(8, 64))
    return make_model(tmp_path_factory.mktemp("rim") / "rim.gguf", spec=spec)


@pytest.fixture(scope="module")
def model(rim_path: Path) -> Iterator[rim_edge.Model]:
    with rim_edge.load(rim_path, **EXACT) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def chat_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a chat template."""
    spec = default_spec(answer_pattern=r"([a-z])", trained_direct=True, **random_probe(8, 64))
    return make_model(tmp_path_factory.mktemp("chat") / "chat.gguf", spec=spec, chat_template=True)


@pytest.fixture(scope="module")
def chat_model(chat_path: Path) -> Iterator[rim_edge.Model]:
    with rim_edge.load(chat_path, **EXACT) as loaded:
        yield loaded


@pytest.fixture
def chat(chat_model: rim_edge.Model) -> Iterator[rim_edge.Chat]:
    with chat_model.chat(max_tokens=8) as opened:
        yield opened
