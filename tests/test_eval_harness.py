"""The adapter for lm-evaluation-harness, on a stand-in for the few names of that package which it uses."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import rim_edge
from rim_edge.errors import OptionError, UnsupportedError

NAME = "rim_edge.evaluation.harness"


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    class LM:
        def __init__(self) -> None:
            self.kept: list[Any] = []
            self.cache_hook = SimpleNamespace(add_partial=lambda *entry: self.kept.append(entry))

    registered: dict[str, type] = {}

    def register_model(name: str) -> Any:
        return lambda kind: registered.setdefault(name, kind)

    for name, content in (
        ("lm_eval", {}),
        ("lm_eval.api", {}),
        ("lm_eval.api.model", {"LM": LM}),
        ("lm_eval.api.registry", {"register_model": register_model}),
    ):
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    module = importlib.import_module(NAME)
    assert registered == {"rim-edge": module.RimEdgeLM}
    yield module
    sys.modules.pop(NAME, None)


def request(text: str, **kwargs: Any) -> SimpleNamespace:
    return SimpleNamespace(args=(text, kwargs))


def test_answers_in_the_order_of_the_requests(harness: Any, rim_path: Path) -> None:
    asked = [
        request("Tom has", max_gen_toks=3, until=[]),
        request("the apples", max_gen_toks=5, until="a"),
        request("1 2", max_gen_toks=4, temperature=0.0),
    ]
    asked += [request("many", max_gen_toks=3, until=[])]
    with harness.RimEdgeLM(rim_path, blocks=2, batch_size="1", max_batch_size=None, device="cpu") as model:
        found = model.generate_until(asked, disable_tqdm=True)
        assert [entry[1][0] for entry in model.kept] == ["Tom has", "many", "the apples", "1 2"]
    with rim_edge.load(rim_path) as plain:
        for text, item in zip(found, asked, strict=True):
            options = harness.options_of(item.args[1])
            assert text == plain.ask_many([item.args[0]], blocks=2, **options)[0].text
    assert harness.options_of({})["max_tokens"] == 256


def test_generation_options(harness: Any) -> None:
    assert harness.options_of({"until": ["a", ""], "max_gen_toks": 9, "temperature": 0.7}) == {
        "stop": ["a"],
        "max_tokens": 9,
    }
    sampled = harness.options_of({"until": "b", "do_sample": True, "temperature": 0.7, "top_p": 0.9})
    assert sampled == {"stop": ["b"], "max_tokens": 256, "temperature": 0.7, "top_p": 0.9}


def test_what_does_not_fit(harness: Any, rim_path: Path) -> None:
    with harness.RimEdgeLM(rim_path) as model:
        with pytest.raises(UnsupportedError, match="choose a task that generates, such as gsm8k"):
            model.loglikelihood([])
        with pytest.raises(UnsupportedError, match="perplexity"):
            model.loglikelihood_rolling([])
    with pytest.raises(OptionError, match="runs 0 to 8"):
        harness.RimEdgeLM(rim_path, blocks=50)


def test_without_the_harness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    with pytest.raises(UnsupportedError, match="pip install lm_eval"):
        importlib.import_module(NAME)
