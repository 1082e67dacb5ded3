"""Converting folders: what the file holds, what is refused by name, and that nothing half-written is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from made_checkpoints import CONFIG, GPT2, tensors_of, write_plain, write_rim
from made_tokenizers import MEMORY_TEXTS, byte_level, save
from rim_edge.convert.families import FAMILIES
from rim_edge.convert.to_gguf import convert
from safetensors.numpy import save_file

from rim_edge import _native
from rim_edge.errors import OptionError, RimError
from rim_edge.spec import RimSpec


@pytest.fixture
def hf(tmp_path: Path) -> Path:
    write_rim(tmp_path / "hf")
    return tmp_path / "hf"


def refused(hf: Path, match: str, **options: Any) -> None:
    """Assert that the conversion fails with one line, and leaves nothing."""
    output = hf.parent / "refused" / "model.gguf"
    output.parent.mkdir(exist_ok=True)
    with pytest.raises((RimError, OSError), match=match) as caught:
        convert(hf, output, **options)
    assert "\n" not in str(caught.value)
    assert list(output.parent.iterdir()) == []


def tensors(path: Path) -> dict[str, gguf.ReaderTensor]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def spec_of(path: Path) -> RimSpec:
    spec = RimSpec.from_gguf(_native.GgufFile(str(path)).metadata, 32)
    assert spec is not None
    return spec


def change_json(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


# ---- what the file holds --------------------------------------------------------------------------------------------


def test_the_metadata_and_the_probe_come_back(hf: Path, tmp_path: Path) -> None:
    change_json(
        hf / "rim_config.json",
        answer_prefix="Answer:",
        answer_pattern=r"(\d+)",
        max_block_count=4,
        source={"data": "x"},
    )
    convert(hf, tmp_path / "model.gguf")
    spec = spec_of(tmp_path / "model.gguf")
    assert (spec.block_count, spec.block_size, spec.max_block_count) == (4, 3, 4)
    assert (spec.answer_prefix, spec.answer_pattern, dict(spec.source)) == ("Answer:", r"(\d+)", {"data": "x"})
    assert spec.probe_weight is not None and spec.probe_weight.shape == (4, 32)
    assert spec.probe_weight[3, 31] == 127.0
    model = _native.Model(str(tmp_path / "model.gguf"), vocab_only=True)
    assert [model.token_text(index).decode() for index in spec.memory_ids] == MEMORY_TEXTS
    assert set(spec.memory_ids) <= set(model.control_ids)


@pytest.mark.parametrize("family", FAMILIES)
def test_libllama_loads_every_family(family: str, tmp_path: Path) -> None:
    changes = {**GPT2} if family == "gpt2" else {"model_type": family, "tie_word_embeddings": family != "qwen3"}
    write_rim(tmp_path / "hf", **changes)
    convert(tmp_path / "hf", tmp_path / "model.gguf", "f32")
    model = _native.Model(str(tmp_path / "model.gguf"))
    assert model.architecture == {"gemma3_text": "gemma3"}.get(family, family)
    assert (model.n_layer, model.n_embd, model.n_vocab) == (2, 32, 448)


@pytest.mark.parametrize(("outtype", "worst"), [("f32", 0.0), ("f16", 2e-3), ("bf16", 2e-2), ("q8_0", 2e-2)])
def test_each_type_keeps_the_values(outtype: str, worst: float, hf: Path, tmp_path: Path) -> None:
    convert(hf, tmp_path / "model.gguf", outtype)
    stored = tensors(tmp_path / "model.gguf")["blk.1.ffn_up.weight"]
    assert stored.tensor_type.name == outtype.upper()
    wanted = tensors_of(CONFIG)["model.layers.1.mlp.up_proj.weight"]
    assert np.abs(gguf.dequantize(stored.data, stored.tensor_type).reshape(wanted.shape) - wanted).max() <= worst
    assert tensors(tmp_path / "model.gguf")["blk.1.ffn_norm.weight"].tensor_type.name == "F32"


def test_rows_that_do_not_fit_q8_0_blocks_stay_f16(tmp_path: Path) -> None:
    write_plain(tmp_path / "hf", hidden_size=48, intermediate_size=64, num_attention_heads=3, num_key_value_heads=3)
    (notice,) = convert(tmp_path / "hf", tmp_path / "model.gguf", "q8_0")
    assert "stay F16" in notice
    kinds = {tensor.tensor_type.name for tensor in tensors(tmp_path / "model.gguf").values()}
    assert kinds == {"Q8_0", "F16", "F32"}


def test_the_same_folder_gives_the_same_bytes(hf: Path, tmp_path: Path) -> None:
    convert(hf, tmp_path / "a.gguf")
    convert(hf, tmp_path / "b.gguf")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_shards_with_and_without_an_index_give_the_same_file(hf: Path, tmp_path: Path) -> None:
    convert(hf, tmp_path / "one.gguf")
    names = split(hf)
    convert(hf, tmp_path / "indexed.gguf")
    (hf / "model.safetensors.index.json").unlink()
    convert(hf, tmp_path / "counted.gguf")
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "indexed.gguf").read_bytes()
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "counted.gguf").read_bytes()
    (hf / names[1]).unlink()
    refused(hf, f"lacks the shard {names[1]}")


def split(hf: Path) -> list[str]:
    """Distribute ``model.safetensors`` over two shards and an index."""
    values = sorted(tensors_of(CONFIG).items())
    names = [f"model-{number:05d}-of-00002.safetensors" for number in (1, 2)]
    for name, part in zip(names, (values[:9], values[9:]), strict=True):
        save_file(dict(part), hf / name)
    places = {tensor: names[index >= 9] for index, (tensor, _) in enumerate(values)}
    (hf / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (hf / "model.safetensors").unlink()
    return names


def test_padding_rows_get_placeholders(hf: Path, tmp_path: Path) -> None:
    convert(hf, tmp_path / "model.gguf")
    model = _native.Model(str(tmp_path / "model.gguf"), vocab_only=True)
    assert model.n_vocab == 448
    assert model.token_text(447) == b"[PAD447]"


@pytest.mark.parametrize("outer", ["model.language_model.", "language_model.model."])
def test_the_text_model_of_a_multimodal_gemma_is_converted(outer: str, tmp_path: Path) -> None:
    given = write_rim(tmp_path / "hf", model_type="gemma3_text")
    text = json.loads((tmp_path / "hf" / "config.json").read_text())
    convert(tmp_path / "hf", tmp_path / "text.gguf")
    (tmp_path / "hf" / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": text}))
    named = {outer + name.removeprefix("model."): value for name, value in given.items()}
    save_file(
        {**named, "vision_tower.patch.weight": np.zeros((2, 2), np.float32)}, tmp_path / "hf" / "model.safetensors"
    )
    (notice,) = convert(tmp_path / "hf", tmp_path / "whole.gguf")
    assert notice == "1 tensors of other modalities are left out: the text model is converted"
    assert (tmp_path / "text.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()


def test_reserved_tokens_can_be_the_memory_tokens(tmp_path: Path) -> None:
    reserved = [f"<|reserved_special_token_{number}|>" for number in range(5)]
    tokenizer = byte_level("llama3", reserved)
    write_plain(tmp_path / "hf", tokenizer)
    ids = [tokenizer.token_to_id(text) for text in reserved[1:4]]
    stated = dict(zip(("begin_id", "memory_id", "end_id"), ids, strict=True))
    (tmp_path / "hf" / "rim_config.json").write_text(json.dumps({**stated, "block_count": 8, "block_size": 2}))
    convert(tmp_path / "hf", tmp_path / "model.gguf")
    assert list(spec_of(tmp_path / "model.gguf").memory_ids) == ids


def test_ids_may_be_left_to_the_tokenizer(hf: Path, tmp_path: Path) -> None:
    (hf / "rim_config.json").write_text(json.dumps({"block_count": 4, "block_size": 3}))
    convert(hf, tmp_path / "model.gguf")
    assert spec_of(tmp_path / "model.gguf").begin_id == byte_level("smollm", MEMORY_TEXTS).token_to_id(MEMORY_TEXTS[0])


# ---- memory tokens for a plain model --------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "grown"), [(421, 424), (448, 448)])
@pytest.mark.parametrize("tied", [True, False])
def test_a_plain_model_gets_memory_tokens_at_the_mean(rows: int, grown: int, tied: bool, tmp_path: Path) -> None:
    given = write_plain(tmp_path / "hf", vocab_size=rows, tie_word_embeddings=tied)
    notices = convert(tmp_path / "hf", tmp_path / "model.gguf", "f32", blocks=5, block_size=3)
    assert any("UNTRAINED" in notice for notice in notices)
    spec = spec_of(tmp_path / "model.gguf")
    assert (spec.block_count, spec.block_size, list(spec.memory_ids)) == (5, 3, [421, 422, 423])
    for name, key in [("token_embd.weight", "model.embed_tokens.weight"), ("output.weight", "lm_head.weight")][
        : 2 - tied
    ]:
        stored = tensors(tmp_path / "model.gguf")[name].data
        assert stored.shape == (grown, 32)
        np.testing.assert_array_equal(stored[:421], given[key][:421])
        np.testing.assert_allclose(stored[list(spec.memory_ids)], np.tile(given[key][:421].mean(0), (3, 1)), atol=1e-6)
    assert _native.Model(str(tmp_path / "model.gguf")).n_vocab == grown


def test_options_that_make_no_sense_are_usage_errors(hf: Path) -> None:
    for options in (
        {"blocks": 0},
        {"blocks": 300},
        {"block_size": 2},
        {"blocks": 2, "block_size": 0},
        {"outtype": "q4_0"},
    ):
        with pytest.raises(OptionError):
            convert(hf, hf.parent / "model.gguf", **options)
    refused(hf, "has memory blocks already", blocks=8)


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_unknown_families_are_named(hf: Path) -> None:
    for kind in ("mamba", "qwen2_moe", None, ["llama"]):
        change_json(hf / "config.json", model_type=kind)
        refused(hf, "model_type .* cannot be converted; known are gpt2, llama, qwen2, qwen3, gemma3")


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rotary scaling 'dynamic'"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"hidden_size": 0}, "positive whole number 'hidden_size'"),
        ({"num_hidden_layers": 3}, "lacks the tensor 'model.layers.2"),
        ({"intermediate_size": 96}, "has the shape .* config.json says"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"quantization_config": {"bits": 4}}, "quantized already"),
        ({"model_type": "qwen2", "use_sliding_window": True}, "sliding window"),
    ],
)
def test_configurations_that_would_compute_something_else_are_named(
    fields: dict[str, Any], match: str, hf: Path
) -> None:
    change_json(hf / "config.json", **fields)
    refused(hf, match)


def test_nan_and_infinity_are_named(hf: Path) -> None:
    for bad in (np.nan, np.inf, -np.inf):
        values = tensors_of(CONFIG)
        values["model.layers.1.mlp.down_proj.weight"][3, 4] = bad
        save_file(values, hf / "model.safetensors")
        for outtype in ("bf16", "q8_0"):
            refused(hf, "'model.layers.1.mlp.down_proj.weight' holds NaN or infinite", outtype=outtype)


def test_values_beyond_f16_are_named(hf: Path) -> None:
    values = tensors_of(CONFIG)
    values["model.layers.0.mlp.up_proj.weight"][0, 0] = 1e5
    save_file(values, hf / "model.safetensors")
    refused(hf, "'model.layers.0.mlp.up_proj.weight' holds values beyond the range of F16", outtype="f16")


def test_pickle_files_are_refused(hf: Path) -> None:
    (hf / "model.safetensors").rename(hf / "pytorch_model.bin")
    refused(hf, "pytorch_model.bin is a pickle file")


def test_an_index_cannot_point_outside_of_its_folder(hf: Path) -> None:
    split(hf)
    index = json.loads((hf / "model.safetensors.index.json").read_text())
    for name in ("../secret.safetensors", "/etc/passwd", "sub/x.safetensors", "model.bin"):
        index["weight_map"]["model.norm.weight"] = name
        (hf / "model.safetensors.index.json").write_text(json.dumps(index))
        refused(hf, "a shard must be a .safetensors file in the same folder")


@pytest.mark.parametrize("cut", [3, 200, -100])
def test_files_that_are_cut_short_are_named(cut: int, hf: Path) -> None:
    whole = (hf / "model.safetensors").read_bytes()
    (hf / "model.safetensors").write_bytes(whole[:cut])
    refused(hf, "model.safetensors is (no valid|damaged)")


def test_files_of_other_kinds_are_refused(hf: Path) -> None:
    for raw in (b"", b"\xff" * 100, (8).to_bytes(8, "little") + b"[1,2,3] ", (2).to_bytes(8, "little") + b"\xff\xfe"):
        (hf / "model.safetensors").write_bytes(raw)
        refused(hf, "model.safetensors is no valid safetensors file")
    (hf / "model.safetensors").unlink()
    refused(hf, r"has no \*.safetensors file")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_missing_and_broken_json_is_named(name: str, hf: Path) -> None:
    for raw in ("{", "[]", "\x00"):
        (hf / name).write_text(raw)
        refused(hf, name)
    (hf / name).unlink()
    refused(hf, f"has no {name}")


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("config.json", {"rope_scaling": "linear"}),
        ("config.json", {"max_position_embeddings": 2**40}),
        ("config.json", {"num_hidden_layers": 2**40}),
        ("config.json", {"eos_token_id": {"a": 1}}),
        ("tokenizer.json", {"added_tokens": [{"id": 430, "content": "\ud800", "special": True}]}),
        ("tokenizer.json", {"added_tokens": [{"id": 430, "content": "a", "special": True}]}),
        ("tokenizer.json", {"added_tokens": [1]}),
        ("tokenizer.json", {"normalizer": "NFC"}),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Sequence", "pretokenizers": 3}}),
        ("tokenizer.json", {"model": []}),
    ],
)
def test_nonsense_in_json_is_one_line_or_does_no_harm(name: str, fields: dict[str, Any], hf: Path) -> None:
    (hf / "rim_config.json").unlink()
    change_json(hf / name, **fields)
    if "eos_token_id" in fields:
        convert(hf, hf.parent / "model.gguf")
    else:
        refused(hf, str(hf) + "|config.json")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "nowhere does not exist")


def test_memory_tokens_must_be_in_the_tokenizer(hf: Path) -> None:
    save(byte_level("smollm"), hf)
    refused(hf, "has no token 42., which rim_config.json names")
    (hf / "rim_config.json").write_text(json.dumps({"block_count": 4, "block_size": 3}))
    refused(hf, r"has no memory token '<\|rim_begin\|>'")


def test_memory_tokens_must_not_be_ordinary_words(hf: Path) -> None:
    save(byte_level("smollm"), hf)
    change_json(hf / "rim_config.json", begin_id=65, memory_id=66, end_id=67)
    refused(hf, "ordinary token")


@pytest.mark.parametrize(
    "fields",
    [{"block_count": 0}, {"block_size": "2"}, {"version": 2}, {"end_id": 421}, {"answer_pattern": "("}, {"x": 1}],
)
def test_contradictory_metadata_is_refused(fields: dict[str, Any], hf: Path) -> None:
    change_json(hf / "rim_config.json", **fields)
    refused(hf, "rim_config.json")


def test_a_probe_of_another_width_is_refused(hf: Path) -> None:
    save_file({"weight": np.zeros((4, 31), np.float32), "bias": np.zeros(4, np.float32)}, hf / "rim_probe.safetensors")
    refused(hf, "probe has width 31")
    save_file({"weight": np.zeros(4, np.float32)}, hf / "rim_probe.safetensors")
    refused(hf, "must hold the tensors weight")


def test_an_existing_file_needs_force(hf: Path, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text("precious")
    with pytest.raises(RimError, match="exists: choose another name or give --force"):
        convert(hf, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_text() == "precious"
    convert(hf, tmp_path / "model.gguf", force=True)
    assert spec_of(tmp_path / "model.gguf").block_count == 4
    for place, problem in ((tmp_path, "is a folder"), (tmp_path / "nowhere" / "model.gguf", "is no folder")):
        with pytest.raises(RimError, match=problem):
            convert(hf, place, force=True)
