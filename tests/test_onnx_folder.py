"""ONNX folders that are broken, incomplete, or hostile: one clear error, and what loading does not import."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx_shapes import GraphWriter, make_onnx, message, number, pair
from shapes import default_spec, make_model, random_probe

import rim_edge
from rim_edge.backends.onnx_file import read_head
from rim_edge.cli.app import cli
from rim_edge.errors import ModelFileError, RimError, SpecError


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx")
    source = make_model(folder / "tiny.gguf", spec=default_spec(**random_probe(8, 64)))
    return make_onnx(source, folder / "good")


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "model"))


def load_error(path: Path) -> str:
    with pytest.raises(RimError) as caught:
        rim_edge.load(path, n_threads=1).close()
    message = str(caught.value)
    assert "\n" not in message and isinstance(caught.value, ModelFileError)
    return message


def edit_json(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    parsed = json.loads(path.read_text())
    edit(parsed)
    path.write_text(json.dumps(parsed))


def test_a_good_folder_says_what_it_is(good: Path) -> None:
    with rim_edge.load(good, n_threads=1) as model:
        assert model.info.architecture == "llama" and model.info.description == "llama ONNX fp32"
        assert model.info.n_layer == 2 and model.info.size_bytes > 300_000 and model.info.n_ctx_train == 2048
        assert model.spec is not None and model.spec.has_probe and not model.notices
    with rim_edge.load(good / "model.onnx", n_threads=1) as model:
        assert model.spec is not None


def test_inspect_and_ask_take_the_folder(good: Path) -> None:
    shown = CliRunner().invoke(cli, ["inspect", str(good)])
    assert shown.exit_code == 0, shown.output
    for part in ("4, at most 8", "<|rim_begin|>", "llama: 2 layers x 64", "8 blocks x 64", "FLOAT"):
        assert part in shown.output
    facts = json.loads(CliRunner().invoke(cli, ["inspect", str(good), "--json"]).output)
    assert facts["memory_slots"]["block_count"] == 4 and facts["vocabulary"]["type"] == "bpe"
    asked = CliRunner().invoke(cli, ["ask", str(good), "Tom has", "--json", "--max-tokens", "3", "--threads", "1"])
    assert asked.exit_code == 0 and json.loads(asked.output)["depth"] == 4


def test_loading_imports_no_heavy_package(good: Path) -> None:
    code = (
        "import sys, rim_edge; before = set(sys.modules); assert not {'onnxruntime', 'tokenizers'} & before;"
        f"rim_edge.load({str(good)!r}, n_threads=1).ask('Tom', max_tokens=1);"
        "print(sorted({'torch', 'transformers', 'onnx', 'gguf', 'onnxruntime_genai'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]" and done.stderr == ""


@pytest.mark.parametrize("name", ["model.onnx.data", "genai_config.json", "tokenizer.json"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    assert name in load_error(copy) and "missing" in load_error(copy)


def test_folders_without_a_model(tmp_path: Path, copy: Path) -> None:
    assert "directory without model.onnx" in load_error(tmp_path)
    (copy / "model.onnx").unlink()
    (copy / "config.json").write_text("{}")
    assert "rim-edge convert" in load_error(copy)


@pytest.mark.parametrize("name", ["genai_config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"model": 3}'])
def test_damaged_json_is_named(copy: Path, name: str, content: bytes) -> None:
    (copy / name).write_bytes(content)
    if name == "tokenizer_config.json" and content.startswith(b'{"model'):
        rim_edge.load(copy, n_threads=1).close()  # valid, and says nothing
    else:
        assert name in load_error(copy)


def test_a_damaged_or_cut_graph_is_refused(copy: Path) -> None:
    whole = (copy / "model.onnx").read_bytes()
    for content in (b"", b"GGUF" + bytes(100), b"\x08", whole[:200], whole[: len(whole) // 2], b"\xff" * 500):
        (copy / "model.onnx").write_bytes(content)
        assert "model.onnx" in load_error(copy)


def test_short_data_is_refused_before_it_is_loaded(copy: Path) -> None:
    data = (copy / "model.onnx.data").read_bytes()
    (copy / "model.onnx.data").write_bytes(data[:-1])
    assert f"has {len(data) - 1} bytes, the model needs {len(data)}" in load_error(copy)


@pytest.mark.parametrize("place", ["../secret", "/etc/passwd", "a/../../secret", "..\\secret", "C:secret", ""])
def test_weights_outside_of_the_folder_are_refused(copy: Path, place: str) -> None:
    (copy.parent / "secret").write_bytes(bytes(10**6))
    whole = (copy / "model.onnx").read_bytes()
    entry, other = pair(13, "location", "model.onnx.data"), pair(13, "location", place)
    graph = GraphWriter()
    graph.initializers.append(message(5, number(1, 100), number(2, 1), message(8, "w"), other, number(14, 1)))
    assert entry in whole
    (copy / "model.onnx").write_bytes(whole + graph.model({}))  # protobuf merges what follows
    assert "outside of its folder" in load_error(copy)


def test_weights_hidden_in_a_subgraph_are_found(copy: Path) -> None:
    tensor = message(5, number(1, 100), number(2, 1), message(8, "w"), pair(13, "location", "../x"), number(14, 1))
    branch = message(6, message(1, message(4, "X"), message(5, tensor)))
    node = message(1, message(4, "If"), message(5, message(1, "then_branch"), branch))
    (copy / "model.onnx").write_bytes((copy / "model.onnx").read_bytes() + message(7, node))
    assert "outside of its folder" in load_error(copy)


@pytest.mark.parametrize(
    ("props", "said"),
    [
        ({"rim.token.begin_id": "99999"}, "vocabulary has"),
        ({"rim.token.begin_id": "5"}, "ordinary token"),
        ({"rim.token.begin_id": "x"}, "cannot be read"),
        ({"rim.block_count": ""}, "rim.block_count is missing"),
        ({"rim.block_count": "0"}, "rim.block_count is 0"),
        ({"rim.version": "2"}, "upgrade rim-edge"),
        ({"rim.version": ""}, "rim.version is missing"),
        ({"rim.probe.weight": "AAAA"}, "rim.probe.weight"),
        ({"rim.answer_pattern": "("}, "regular expression"),
    ],
)
def test_metadata_that_contradicts_the_model(good: Path, tmp_path: Path, props: dict[str, str], said: str) -> None:
    folder = make_onnx(good.parent / "tiny.gguf", tmp_path / "model", props=props)
    message = load_error(folder)
    assert said in message and str(folder) in message
    with pytest.raises(SpecError):
        rim_edge.load(folder, n_threads=1)


def test_files_that_do_not_belong_together(copy: Path) -> None:
    more = {f"extra{n}": 400 + n for n in range(99)}
    edit_json(copy / "tokenizer.json", lambda parsed: parsed["model"]["vocab"].update(more))
    assert "do not belong together" in load_error(copy)
    edit_json(copy / "genai_config.json", lambda parsed: parsed["model"].update(eos_token_id=10**6))
    assert "genai_config.json" in load_error(copy) or "do not belong" in load_error(copy)


def test_a_graph_of_the_bare_builder_is_refused_with_the_way_out(copy: Path) -> None:
    whole = (copy / "model.onnx").read_bytes()
    (copy / "model.onnx").write_bytes(whole.replace(b"output_rows", b"output_rowz"))
    assert "rim-edge convert onnx" in load_error(copy)


def test_positions_are_a_hard_limit(good: Path, tmp_path: Path) -> None:
    folder = make_onnx(good.parent / "tiny.gguf", tmp_path / "short", n_positions=64)
    with pytest.raises(rim_edge.OptionError, match="positions for 32 tokens"):
        rim_edge.load(folder, n_ctx=64, n_threads=1)
    with rim_edge.load(folder, n_threads=1) as model:
        answer = model.ask("a", blocks=8)
        assert model.n_ctx == 32 and answer.tokens.prompt + answer.tokens.answer <= 32
        assert model.ask("a", blocks=8, readouts=True).text == answer.text


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10**6), byte=st.integers(0, 255), cut=st.integers(0, 10**6))
def test_damage_to_the_head_is_one_error_or_none(copy: Path, good: Path, position: int, byte: int, cut: int) -> None:
    whole = bytearray((good / "model.onnx").read_bytes())
    whole[position % len(whole)] = byte
    (copy / "damaged.onnx").write_bytes(whole[: max(1, cut % (2 * len(whole)))])
    try:
        read_head(copy / "damaged.onnx")
    except ModelFileError as error:
        assert "\n" not in str(error)
