"""A checkpoint on its way to a file: configuration, tensors, tokenizer and memory-slot metadata that fit each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rim_edge.errors import SpecError
from rim_edge.spec import BEGIN_TEXT, END_TEXT, MEMORY_TEXT, RimSpec

from .failure import ConvertError
from .families import Family, family_of
from .families.config import Config
from .hf_folder import PROBE_FILE, check_folder, model_tensors, read_json, read_json_if_there
from .lazy_tensor import LazyTensor
from .safetensors_file import read_tensors
from .tokenizer_file import Tokenizer, read_tokenizer

MEMORY_TEXTS = {"begin_id": BEGIN_TEXT, "memory_id": MEMORY_TEXT, "end_id": END_TEXT}


@dataclass(frozen=True)
class Checkpoint:
    """What a writer needs.

    Attributes:
        folder: the model's folder, named in messages.
        config: the language model's part of ``config.json``.
        family: how the configuration and the tensors are to be read.
        tensors: by their canonical names (``families/base.py``); the head only where it is not tied.
        tokenizer, spec: as found, or as changed by an adapter or by new memory tokens. ``spec`` None: a plain model.
        name, license: for the file's ``general.*`` keys.
        notices: what a user should be told.
    """

    folder: Path
    config: Config
    family: Family
    tensors: dict[str, LazyTensor]
    tokenizer: Tokenizer
    spec: RimSpec | None
    name: str
    license: str | None
    notices: tuple[str, ...] = ()

    @property
    def embedding(self) -> LazyTensor:
        return self.tensors[self.family.embedding]

    @property
    def head(self) -> LazyTensor | None:
        """The output head; None where it is the embedding."""
        return self.tensors.get(self.family.head)

    @property
    def n_vocab(self) -> int:
        """Rows of the embedding, which may be more than tokens."""
        return self.embedding.shape[0]


def read_checkpoint(folder: Path, tokenizer: Tokenizer | None = None) -> Checkpoint:
    """Read a model's folder; nothing but headers of tensors is read yet.

    ``tokenizer`` takes the place of the folder's own. Raises ConvertError with one line for a folder that cannot be
    converted, SpecError for memory-slot metadata that contradicts itself.
    """
    check_folder(folder)
    config = read_json(folder / "config.json")
    if config.get("quantization_config"):
        raise ConvertError(
            f"{folder} is quantized already (quantization_config): convert the model in F32, F16 or BF16"
        )
    family = family_of(config)
    config = family.text_config(config)
    family.check(config)
    tensors, left_out = _named(folder, family, model_tensors(folder))
    if family.is_tied(config):
        tensors.pop(family.head, None)
    spec_file = read_json_if_there(folder / "rim_config.json")
    source = spec_file.get("source") if isinstance(spec_file.get("source"), dict) else {}
    found = tokenizer or read_tokenizer(folder)
    checkpoint = Checkpoint(
        folder=folder,
        config=config,
        family=family,
        tensors=tensors,
        tokenizer=found,
        spec=read_spec(folder, found),
        name=str((source or {}).get("name") or folder.resolve().name),
        license=str(source["license"]) if source and source.get("license") else None,
        notices=(f"{left_out} tensors of other modalities are left out: the text model is converted",)
        if left_out
        else (),
    )
    _check_tensors(checkpoint)
    return checkpoint


def _named(folder: Path, family: Family, stored: dict[str, LazyTensor]) -> tuple[dict[str, LazyTensor], int]:
    """Tensors by canonical name, and how many of other modalities there were."""
    tensors: dict[str, LazyTensor] = {}
    left_out = 0
    for name, tensor in stored.items():
        known = family.canonical(name)
        if known is None:
            left_out += "vision" in name or "multi_modal" in name
        elif known in tensors:
            raise ConvertError(f"{folder} holds {name!r} and {tensors[known].name!r}, which are the same tensor")
        else:
            tensors[known] = tensor
    return tensors, left_out


def _check_tensors(checkpoint: Checkpoint) -> None:
    """Raise ConvertError for a tensor that is missing, has the wrong shape, or has no place."""
    family, config, folder = checkpoint.family, checkpoint.config, checkpoint.folder
    if family.n_layers(config) > len(checkpoint.tensors):
        raise ConvertError(
            f"{folder} holds {len(checkpoint.tensors)} tensors, too few for {family.n_layers(config)} layers"
        )
    wanted = family.shapes(config)
    for name, shape in wanted.items():
        if name not in checkpoint.tensors:
            raise ConvertError(f"{folder} lacks the tensor {name!r}: the checkpoint is incomplete")
        if checkpoint.tensors[name].shape != shape:
            raise ConvertError(
                f"{folder}: the tensor {name!r} has the shape {checkpoint.tensors[name].shape}, config.json says "
                f"{shape}"
            )
    heads = [family.embedding] if family.is_tied(config) else [family.embedding, family.head]
    n_vocab = config.get("vocab_size")
    for name in heads:
        if name not in checkpoint.tensors:
            raise ConvertError(f"{folder} lacks the tensor {name!r}: the checkpoint is incomplete")
        shape = checkpoint.tensors[name].shape
        if len(shape) != 2 or shape[1] != family.width(config) or shape[0] != n_vocab:
            raise ConvertError(
                f"{folder}: the tensor {name!r} has the shape {shape}, config.json says "
                f"{(n_vocab, family.width(config))}"
            )
    if stray := sorted(set(checkpoint.tensors) - set(wanted) - set(heads)):
        raise ConvertError(f"{folder}: no place in a {family.architecture} model for the tensor {stray[0]!r}")


def read_spec(folder: Path, tokenizer: Tokenizer) -> RimSpec | None:
    """The memory-slot metadata of ``rim_config.json`` and ``rim_probe.safetensors``; None for a plain model.

    Ids that the file leaves out are those of the tokens ``<|rim_begin|>``, ``<|rim_memory|>``, ``<|rim_end|>``. Raises
    SpecError where it contradicts itself, ConvertError where the tokenizer lacks the memory tokens.
    """
    if not (folder / "rim_config.json").exists():
        return None
    stated = read_json(folder / "rim_config.json")
    for key, text in MEMORY_TEXTS.items():
        index = tokenizer.id_of(text)
        if stated.get(key) is None:
            if index is None:
                raise ConvertError(
                    f"{tokenizer.folder}/tokenizer.json has no memory token {text!r}, and rim_config.json gives no "
                    f"{key}"
                )
            stated[key] = index
    weight = bias = None
    if (folder / PROBE_FILE).exists():
        probe = read_tensors(folder / PROBE_FILE)
        if not {"weight", "bias"} <= set(probe) or [len(probe[name].shape) for name in ("weight", "bias")] != [2, 1]:
            raise SpecError(f"{folder / PROBE_FILE} must hold the tensors weight [K, n_embd] and bias [K]")
        weight, bias = probe["weight"].whole(), probe["bias"].whole()
    try:
        spec = RimSpec.from_json(stated, weight, bias)
    except SpecError as error:
        raise SpecError(f"{folder / 'rim_config.json'}: {error}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise SpecError(f"{folder / 'rim_config.json'} cannot be read: {error}") from None
    _check_memory_tokens(folder, spec, tokenizer)
    return spec


def _check_memory_tokens(folder: Path, spec: RimSpec, tokenizer: Tokenizer) -> None:
    """Raise ConvertError unless each memory token is a token of its own beside the ordinary vocabulary."""
    for (key, text), index in zip(MEMORY_TEXTS.items(), spec.memory_ids, strict=True):
        found = tokenizer.text_of(index)
        if found is None:
            raise ConvertError(
                f"{tokenizer.folder}/tokenizer.json has no token {index}, which rim_config.json names as {key}"
            )
        other: Any = tokenizer.id_of(text)
        if other not in (None, index):
            raise ConvertError(
                f"{folder}/rim_config.json says {key} is {index} ({found!r}), but {text!r} is token {other}"
            )
        if index not in tokenizer.added and not (found.startswith(("<", "[")) and found.endswith((">", "]"))):
            raise ConvertError(
                f"{folder}/rim_config.json names token {index} as {key}, but that is the ordinary token {found!r}"
            )
