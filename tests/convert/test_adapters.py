"""Adapters that peft wrote, merged here, against the adapted model in PyTorch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from checkpoints import FAMILIES, model_of, tokenizer_of, write_spec
from made_tokenizers import MEMORY_TEXTS, save
from parity import check_parity
from rim_edge.convert.to_gguf import convert
from safetensors.torch import load, save_file

from rim_edge import _native
from rim_edge.errors import RimError

pytestmark = pytest.mark.filterwarnings("ignore")  # peft's advice on ties and resizing
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CONV = ["c_attn", "c_proj", "c_fc"]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def embedding_of(family: str) -> str:
    return "wte" if family == "gpt2" else "embed_tokens"


def adapted(tmp_path: Path, family: str, tied: bool = True, padding: int = 0, **options: Any) -> peft.PeftModel:
    """Write a base without memory tokens to ``base`` and a trained adapter with them to ``adapter``; the adapted model.

    ``"IDS"`` in an option stands for the ids of the memory tokens.
    """
    base, folder = tmp_path / "base", tmp_path / "adapter"
    plain, tokenizer = tokenizer_of(family), tokenizer_of(family, MEMORY_TEXTS)
    n_vocab = plain.get_vocab_size() + padding
    model_of(family, n_vocab, tie_word_embeddings=tied).save_pretrained(base)
    save(plain, base)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(5)
    if tokenizer.get_vocab_size() > n_vocab:
        model.resize_token_embeddings(tokenizer.get_vocab_size())
    ids = [tokenizer.token_to_id(text) for text in MEMORY_TEXTS]
    trained = options.pop("trainable_token_indices", "IDS" if "modules_to_save" not in options else None)
    chosen: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": CONV if family == "gpt2" else LINEAR}
    chosen["trainable_token_indices"] = {embedding_of(family): ids} if trained == "IDS" else trained
    model = peft.get_peft_model(model, peft.LoraConfig(**(chosen | options)))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn_like(parameter) * 0.1
    model.eval().save_pretrained(folder)
    save(tokenizer, folder)
    write_spec(folder, tokenizer, 64)
    return model


def stored(tmp_path: Path) -> dict[str, torch.Tensor]:
    """The adapter's tensors."""
    return dict(load((tmp_path / "adapter" / "adapter_model.safetensors").read_bytes()))


def merged(tmp_path: Path, **options: Any) -> Path:
    convert(tmp_path / "base", tmp_path / "model.gguf", "f32", adapter=tmp_path / "adapter", **options)
    return tmp_path / "model.gguf"


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_of_every_family_are_merged(family: str, tied: bool, tmp_path: Path) -> None:
    model = adapted(tmp_path, family, tied)
    check_parity(merged(tmp_path), model, family)


@pytest.mark.parametrize("padding", [0, 9])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {"modules_to_save": ["embed_tokens"]},
        {"modules_to_save": ["embed_tokens", "lm_head"]},
        {"modules_to_save": ["embed_tokens", "lm_head"], "ensure_weight_tying": True},
        {"modules_to_save": ["input_layernorm", "embed_tokens"]},
        {"use_dora": True},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 2, "layers.1.self_attn.v_proj": 8}, "alpha_pattern": {"v_proj": 32}},
        {"bias": "all"},
        {"layers_to_transform": [1]},
    ],
    ids=str,
)
def test_every_kind_of_lora_is_merged(options: dict[str, Any], tied: bool, padding: int, tmp_path: Path) -> None:
    model = adapted(tmp_path, "qwen2", tied, padding, **options)
    check_parity(merged(tmp_path), model, "qwen2")


def test_a_low_rank_change_of_the_embedding_is_merged(tmp_path: Path) -> None:
    options = {"target_modules": ["q_proj", "embed_tokens"], "trainable_token_indices": None}
    model = adapted(tmp_path, "llama", True, padding=9, **options)
    check_parity(merged(tmp_path), model, "llama")


def test_a_low_rank_change_of_a_tied_head_unties_it(tmp_path: Path) -> None:
    options = {"target_modules": ["q_proj", "lm_head"], "trainable_token_indices": None}
    model = adapted(tmp_path, "llama", True, padding=9, **options)
    check_parity(merged(tmp_path), model, "llama")


def test_conv1d_is_merged_with_all_its_options(tmp_path: Path) -> None:
    model = adapted(
        tmp_path, "gpt2", use_dora=True, use_rslora=True, rank_pattern={"attn.c_proj": 2}, fan_in_fan_out=True
    )
    check_parity(merged(tmp_path), model, "gpt2")


def test_rows_are_replaced_in_the_order_of_the_indices(tmp_path: Path) -> None:
    model = adapted(tmp_path, "smollm", padding=9, trainable_token_indices={"embed_tokens": [423, 7, 421, 422]})
    check_parity(merged(tmp_path), model, "smollm", [7, 9, 7, 30, 200])


def test_a_resized_embedding_saved_beside_trained_rows_counts(tmp_path: Path) -> None:
    model = adapted(tmp_path, "llama", False)
    names = stored(tmp_path)
    assert any("base_layer" in name for name in names)
    check_parity(merged(tmp_path), model, "llama")


def test_the_metadata_of_the_adapter_counts_and_its_source_is_kept(tmp_path: Path) -> None:
    adapted(tmp_path, "llama")
    metadata = _native.GgufFile(str(merged(tmp_path))).metadata
    assert metadata["rim.block_count"] == 4
    assert (metadata["rim.source.base"], metadata["rim.source.adapter"]) == ("base", "adapter")


# ---- what is refused ------------------------------------------------------------------------------------------------


def refused(tmp_path: Path, match: str) -> None:
    with pytest.raises(RimError, match=match) as caught:
        merged(tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*.gguf"))


def change_config(tmp_path: Path, **fields: Any) -> None:
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    adapted(tmp_path, "qwen2")
    for other, changes in (("qwen2", {"hidden_size": 32}), ("qwen2", {"num_hidden_layers": 1}), ("gpt2", {})):
        shutil.rmtree(tmp_path / "base")
        model_of(other, tokenizer_of("qwen2").get_vocab_size(), **changes).save_pretrained(tmp_path / "base")
        save(tokenizer_of("qwen2"), tmp_path / "base")
        refused(tmp_path, "belongs to another base")


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"peft_type": "IA3"}, "describes a IA3 adapter"),
        ({"layer_replication": [[0, 1]]}, "layer_replication, which cannot be merged"),
        ({"lora_bias": True}, "lora_bias, which cannot be merged"),
        ({"use_qalora": True}, "use_qalora, which cannot be merged"),
        ({"use_something_new": True}, "use_something_new, which cannot be merged"),
        ({"init_lora_weights": "pissa_niter_4"}, "which changes the base"),
        ({"r": 8}, "has rank 4, adapter_config.json says r 8"),
        ({"trainable_token_indices": None}, "names no trainable_token_indices"),
        ({"trainable_token_indices": [1, 2]}, "another base: 2 trained rows"),
    ],
)
def test_what_cannot_be_merged_is_named(fields: dict[str, Any], match: str, tmp_path: Path) -> None:
    adapted(tmp_path, "qwen2")
    change_config(tmp_path, **fields)
    refused(tmp_path, match)


def test_damaged_adapters_are_named(tmp_path: Path) -> None:
    adapted(tmp_path, "llama")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    whole = stored(tmp_path)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    whole = {key: value.clone() for key, value in whole.items()}  # a tied head shares its memory
    save_file({key: value for key, value in whole.items() if key != name}, file)
    refused(tmp_path, "one half only of the LoRA pair of model.layers.0.self_attn.q_proj")
    save_file({**whole, name: torch.full_like(whole[name], float("nan"))}, file)
    refused(tmp_path, "'model.layers.0.self_attn.q_proj.weight' holds NaN")
    save_file({**whole, "base_model.model.model.layers.0.self_attn.q_proj.oft_r": whole[name].clone()}, file)
    refused(tmp_path, "of a kind that cannot be merged")
    file.rename(file.with_name("adapter_model.bin"))
    refused(tmp_path, "adapter_model.bin is a pickle file")


def test_an_adapter_without_rows_for_the_memory_tokens_is_told_of(tmp_path: Path) -> None:
    adapted(tmp_path, "llama")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    kept = {
        name: value for name, value in stored(tmp_path).items() if "embed_tokens" not in name and "lm_head" not in name
    }
    save_file(kept, file)
    notices = convert(tmp_path / "base", tmp_path / "model.gguf", adapter=tmp_path / "adapter")
    assert any("THE MEMORY TOKENS ARE UNTRAINED" in notice for notice in notices)
