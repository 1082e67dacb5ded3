"""Quantized files: what is in them, that they are the same each time, and what is refused before any work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pytest
from gguf_rewrite import rewritten
from shapes import default_spec, make_model, random_probe

import rim_edge
from convert.failure import ConvertError
from convert.quantization.quantizer import describe_file, plan_file, quantize_file
from convert.quantization.recipe import FILE_TYPES, TENSOR_TYPES, Recipe, parse_tensor_type
from rim_edge import _native
from rim_edge.errors import CancelledError, ModelFileError, OptionError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose rows take K-quants, with everything that ``rim.*`` can hold."""
    spec = default_spec(
        **random_probe(8, 256),
        answer_prefix="Answer: ",
        answer_pattern=r"(\d+)",
        trained_direct=True,
        source={"base": "none", "data": "größer"},
    )
    return make_model(tmp_path_factory.mktemp("quantize") / "wide.gguf", n_embd=256, spec=spec)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose rows are no multiple of 256."""
    return make_model(tmp_path_factory.mktemp("quantize") / "narrow.gguf", outtype="bf16")


def types_in(path: Path) -> dict[str, str]:
    """Tensor types as another reader sees them."""
    return {tensor.name: tensor.tensor_type.name.lower() for tensor in gguf.GGUFReader(path).tensors}


def metadata_of(path: Path) -> dict[str, Any]:
    return {k: f.contents() for k, f in gguf.GGUFReader(path).fields.items() if not k.startswith("GGUF.")}


def test_the_same_recipe_gives_the_same_bytes(wide: Path, tmp_path: Path) -> None:
    files = [
        quantize_file(wide, tmp_path / f"{n}.gguf", Recipe("q4_k_m"), n_threads=n).path.read_bytes() for n in (1, 2, 5)
    ]
    assert files[0] == files[1] == files[2]


def test_metadata_goes_through_untouched(wide: Path, tmp_path: Path) -> None:
    made = quantize_file(wide, tmp_path / "a.gguf", Recipe("q3_k_m"))
    before, after = metadata_of(wide), metadata_of(made.path)
    assert len([key for key in before if key.startswith("rim.")]) == 16
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert changed == {"general.file_type", "general.quantization_version"}
    assert after["general.file_type"] == FILE_TYPES["q3_k_m"].number


def test_a_quantized_model_answers_with_its_blocks(wide: Path, tmp_path: Path) -> None:
    made = quantize_file(wide, tmp_path / "a.gguf", Recipe("q8_0"))
    with rim_edge.load(wide, n_threads=1) as before, rim_edge.load(made.path, n_threads=1) as after:
        one, two = (m.ask("Tom has 2 apples", hidden=True, max_tokens=2).readouts for m in (before, after))
    assert [r.block for r in one] == [r.block for r in two] == [1, 2, 3, 4]
    for a, b in zip(one, two, strict=True):
        assert a.hidden is not None and b.hidden is not None
        assert np.corrcoef(a.hidden, b.hidden)[0, 1] > 0.99


def test_what_is_told_of_a_file_is_what_is_in_it(wide: Path, tmp_path: Path) -> None:
    made = quantize_file(wide, tmp_path / "a.gguf", Recipe("q4_k_m"))
    tensors = gguf.GGUFReader(made.path).tensors
    size, values = sum(t.n_bytes for t in tensors), sum(t.n_elements for t in tensors)
    assert made.bits_per_weight == pytest.approx(8 * size / values)
    assert made.size_bytes == made.path.stat().st_size
    count = Counter(types_in(made.path).values())
    assert {kind: found.n_tensors for kind, found in made.tensor_types.items()} == count
    assert set(count) == {"q4_k", "q6_k", "f32"} and made.fallbacks == ()
    assert describe_file(made.path) == made


def test_silent_fallbacks_are_told(narrow: Path, tmp_path: Path) -> None:
    made = quantize_file(narrow, tmp_path / "a.gguf", Recipe("q4_k_m"))
    actual = types_in(made.path)
    assert "q4_k" not in made.tensor_types and "q5_0" in made.tensor_types
    assert {name: kind for name, _, kind in made.fallbacks} == {
        name: kind for name, kind in actual.items() if kind != "f32"
    }
    asked = {name: kind for name, kind, _ in made.fallbacks}
    assert asked["blk.0.attn_q.weight"] == "q4_k" and actual["blk.0.attn_q.weight"] == "q5_0"
    assert asked["output.weight"] == "q6_k" and actual["output.weight"] == "q8_0"  # that one is in no log


@pytest.mark.parametrize("name", FILE_TYPES)
def test_every_file_type_is_planned_as_it_is_made(name: str, wide: Path, tmp_path: Path) -> None:
    recipe = Recipe(name)
    if FILE_TYPES[name].needs_importance:
        with pytest.raises(OptionError, match="without an importance matrix"):
            plan_file(wide, recipe)
        return
    plan = plan_file(wide, recipe)
    if name in ("q4_0", "iq4_nl", "q2_k", "tq2_0", "bf16"):
        made = quantize_file(wide, tmp_path / "a.gguf", recipe)
        assert types_in(made.path) == plan.tensors
        assert made.size_bytes <= plan.size_bytes
        assert FILE_TYPES[name].base in made.tensor_types


def test_overrides_and_the_first_match_wins(wide: Path, tmp_path: Path) -> None:
    overrides = (("blk\\.1\\.ffn_down", "Q8_0"), ("ffn_", "iq4_nl"), parse_tensor_type("attn_v=F16"))
    recipe = Recipe("Q4_0", overrides, output_type="q5_k", embedding_type="q6_k")
    made = types_in(quantize_file(wide, tmp_path / "a.gguf", recipe).path)
    assert made["blk.1.ffn_down.weight"] == "q8_0"
    assert made["blk.0.ffn_down.weight"] == made["blk.1.ffn_up.weight"] == "iq4_nl"
    assert made["blk.0.attn_v.weight"] == "f16" and made["blk.0.attn_q.weight"] == "q4_0"
    assert made["output.weight"] == "q5_k" and made["token_embd.weight"] == "q6_k"


def test_overrides_of_a_file_of_whole_numbers(wide: Path, tmp_path: Path) -> None:
    """libllama itself ignores them for these types."""
    made = quantize_file(wide, tmp_path / "a.gguf", Recipe("bf16", (("ffn_down", "q8_0"),)))
    assert {name for name, kind in types_in(made.path).items() if kind == "q8_0"} == {
        "blk.0.ffn_down.weight",
        "blk.1.ffn_down.weight",
    }
    assert set(made.tensor_types) == {"bf16", "q8_0", "f32"}
    assert metadata_of(made.path)["general.file_type"] == FILE_TYPES["bf16"].number


def test_one_matrix_for_embedding_and_output(wide: Path, tmp_path: Path) -> None:
    tied = rewritten(wide, tmp_path / "tied.gguf", tensors={"output.weight": None})
    for recipe in (Recipe("q4_k_m", output_type="q8_0"), Recipe("f16", output_type="q8_0")):
        made = quantize_file(tied, tmp_path / f"{recipe.type}.gguf", recipe)
        assert types_in(made.path)["token_embd.weight"] == "q8_0"
    with pytest.raises(OptionError, match="one matrix for embedding and output"):
        quantize_file(tied, tmp_path / "a.gguf", Recipe("q4_0", output_type="q8_0", embedding_type="q6_k"))


def test_a_source_with_another_alignment(tmp_path: Path) -> None:
    source = make_model(tmp_path / "a.gguf")
    aligned = rewritten(source, tmp_path / "b.gguf", alignment=256)
    made = [quantize_file(path, tmp_path / f"out-{path.name}", Recipe("q8_0")) for path in (source, aligned)]
    with rim_edge.load(made[1].path, n_threads=1) as model:
        assert model.ask("Tom", max_tokens=1).depth == 4
    values = [[t.data.tobytes() for t in gguf.GGUFReader(file.path).tensors] for file in made]
    assert values[0] == values[1]


def test_a_source_in_parts_becomes_one_file(narrow: Path, tmp_path: Path) -> None:
    first = rewritten(narrow, tmp_path / "part.gguf", tensors_per_part=8)
    assert first.name == "part-00001-of-00003.gguf"
    made = [quantize_file(path, tmp_path / f"{path.stem}-q.gguf", Recipe("q8_0")) for path in (narrow, first)]
    assert types_in(made[0].path) == types_in(made[1].path)
    assert made[0].tensor_types == made[1].tensor_types
    with pytest.raises(ConvertError, match="is the source"):
        quantize_file(first, tmp_path / "part-00002-of-00003.gguf", Recipe("q8_0"))


def test_a_source_of_q8_0_is_taken_with_a_notice(tmp_path: Path) -> None:
    source = make_model(tmp_path / "q8.gguf", outtype="q8_0")
    made = quantize_file(source, tmp_path / "a.gguf", Recipe("q4_0"))
    assert "Q8_0 already" in made.notices[0]
    assert "q4_0" in made.tensor_types


@pytest.mark.parametrize(
    "recipe, message",
    [
        (Recipe("q4_0", (("ffn_dwon", "q8_0"),)), "'ffn_dwon' finds no tensor .* such as blk.0.attn_q.weight"),
        (Recipe("q4_0", (("ffn_(", "q8_0"),)), "'ffn_\\(' is not a regular expression"),
        (Recipe("q4_0", (("_norm", "q8_0"),)), "finds only tensors that always keep their type"),
        (Recipe("q4_0", output_type="q4_k"), "output.weight cannot be q4_k: its rows of 64 .*possible: f32, .*q8_0, "),
        (Recipe("q4_0", embedding_type="q2_k"), "token_embd.weight cannot be q2_k"),
    ],
)
def test_recipes_that_do_not_fit_the_model(recipe: Recipe, message: str, narrow: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message):
        quantize_file(narrow, tmp_path / "a.gguf", recipe)
    assert list(tmp_path.iterdir()) == []


def test_unknown_types_are_named_with_the_list() -> None:
    with pytest.raises(OptionError, match=r"file type 'q4_k_x' is unknown: use one of f32, .*q4_k_m"):
        Recipe("q4_k_x")
    with pytest.raises(OptionError, match=r"tensor type 'q9' is unknown: use one of .*q4_k"):
        Recipe("q4_0", (("ffn", "q9"),))
    with pytest.raises(OptionError, match="REGEX=TYPE"):
        parse_tensor_type("ffn_down")
    assert {"q4_k", "bf16", "iq4_nl"} <= set(TENSOR_TYPES)


def test_a_recipe_survives_json() -> None:
    recipe = Recipe("Q4_K", (("a=b", "Q8_0"),), output_type="F16", importance="0" * 64)
    assert recipe.type == "q4_k_m"
    assert Recipe.from_dict(recipe.as_dict()) == recipe


def test_a_quantized_source_is_refused(tmp_path: Path) -> None:
    source = make_model(tmp_path / "q4.gguf", outtype="q4_0")
    with pytest.raises(ModelFileError, match=r"quantized already \(16 tensors of q4_0\)"):
        quantize_file(source, tmp_path / "a.gguf", Recipe("q8_0"))


def test_places_that_will_not_do(narrow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe("q4_0")
    with pytest.raises(ConvertError, match="is the source"):
        quantize_file(narrow, narrow, recipe)
    (tmp_path / "link.gguf").symlink_to(narrow)
    with pytest.raises(ConvertError, match="is the source"):
        quantize_file(narrow, tmp_path / "link.gguf", recipe)
    with pytest.raises(ConvertError, match="is no folder"):
        quantize_file(narrow, tmp_path / "none" / "a.gguf", recipe)
    (tmp_path / "a.gguf").write_text("mine")
    with pytest.raises(ConvertError, match="exists"):
        quantize_file(narrow, tmp_path / "a.gguf", recipe, force=False)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(ConvertError, match=r"will take .* MB, but only 0.0 MB are free"):
        quantize_file(narrow, tmp_path / "a.gguf", recipe)
    assert (tmp_path / "a.gguf").read_text() == "mine"


def test_broken_weights_end_in_an_error(tmp_path: Path) -> None:
    source = make_model(tmp_path / "a.gguf", n_embd=256)
    tensor = next(t for t in _native.GgufFile(str(source)).tensors if t.name == "blk.1.ffn_up.weight")
    with open(source, "r+b") as file:
        file.seek(tensor.offset)
        file.write(np.full(256, np.nan, np.float32).tobytes())
    with pytest.raises(ModelFileError, match="cannot be quantized"):
        quantize_file(source, tmp_path / "b.gguf", Recipe("q4_k_m"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]


def test_stopping_leaves_nothing(narrow: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    def interrupt(done: int, total: int) -> bool:
        seen.append(done)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return True

    with pytest.raises(KeyboardInterrupt):
        quantize_file(narrow, tmp_path / "a.gguf", Recipe("q8_0"), progress=interrupt)
    with pytest.raises(CancelledError):
        quantize_file(narrow, tmp_path / "a.gguf", Recipe("q8_0"), progress=lambda done, total: done == 0)
    assert list(tmp_path.iterdir()) == []


def test_progress_goes_from_nothing_to_all(narrow: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    quantize_file(narrow, tmp_path / "a.gguf", Recipe("q8_0"), progress=lambda *at: seen.append(at))
    total = sum(tensor.size_bytes for tensor in _native.GgufFile(str(narrow)).tensors)
    assert seen[0] == (0, total) and seen[-1] == (total, total)
    assert seen == sorted(seen)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_command_leaves_nothing(how: signal.Signals, tmp_path: Path) -> None:
    """Neither a file nor a process: the quantizer's process ends with its parent."""
    source = make_model(tmp_path / "a.gguf", n_embd=1024, n_head=16, n_layer=8)
    code = (
        "import sys, os\nfrom pathlib import Path\n"
        "from convert.quantization.quantizer import quantize_file\n"
        "from convert.quantization.recipe import Recipe\n"
        "say = lambda done, total: print(done, flush=True)\n"
        "quantize_file(Path(sys.argv[1]), Path(sys.argv[2]), Recipe('q2_k'), n_threads=1, progress=say)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(source), str(tmp_path / "b.gguf")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    (os.killpg if how == signal.SIGINT else os.kill)(process.pid, how)
    assert process.wait() != 0
    process.stdout.read()  # until the last holder of the pipe is gone
    process.stdout.close()
    for _ in range(100):
        left = [path.name for path in tmp_path.iterdir()]
        if left == ["a.gguf"]:
            break
        time.sleep(0.1)
    assert left == ["a.gguf"]
