"""Quantizing one GGUF file: libllama's quantizer, with every silent choice of its found and told.

libllama's quantizer takes an F32, F16 or BF16 file and gives each tensor a type by the file type and the tensor's place
in the model. Metadata goes through untouched, ``rim.*`` included. The same source and recipe give the same bytes,
whatever the number of threads.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from rim_edge import _native
from rim_edge.errors import ModelFileError, OptionError
from rim_edge.evaluation.identity import file_sha256

from ..failure import ConvertError
from ..whole_file import check_output, whole_file
from .described import (
    Fallback,
    QuantizedFile,
    Tensor,
    TypeCount,
    bits_per_weight,
    count_types,
    describe_file,
    parts,
    read_tensors,
)
from .importance import ImportanceMatrix
from .process import run_quantizer
from .recipe import NEED_IMPORTANCE, Recipe

__all__ = ["Fallback", "QuantizedFile", "TypeCount", "describe_file", "plan_file", "quantize_file"]

Progress = Callable[[int, int], bool | None]

_WHOLE = ("f32", "bf16", "f16")  # types of values that are numbers by themselves
_ALIGNMENT = 32  # of tensor data in what libllama's quantizer writes, whatever the source says
_BLOCKS = _native.tensor_types()  # values per block, bytes per block, whether an importance matrix must be there


@dataclass(frozen=True)
class Plan:
    """What quantizing a file would give.

    Attributes:
        tensors: name to type.
        fallbacks: tensors whose rows do not allow the type that was asked for.
        size_bytes: of the file, to the byte or a little more.
        notices: what a user should be told.
    """

    tensors: dict[str, str]
    fallbacks: tuple[Fallback, ...]
    size_bytes: int
    notices: tuple[str, ...]
    options: dict[str, Any]


def quantize_file(
    source: Path,
    target: Path,
    recipe: Recipe,
    importance: ImportanceMatrix | None = None,
    *,
    n_threads: int = 0,
    progress: Progress | None = None,
    force: bool = True,
) -> QuantizedFile:
    """Write ``source`` to ``target`` as ``recipe`` says. The file appears whole or not at all, Ctrl-C included.

    Args:
        source: GGUF model of F32, F16 or BF16 (of Q8_0 with a notice); the first of its parts, if it has several.
        target: what to write; replaced if it exists and ``force`` is on.
        importance: weighs rounding errors, see :mod:`.importance`; its SHA-256 must be the recipe's, if that has one.
        n_threads: 0 is one per physical core.
        progress: called with bytes of the source done and in all; returning False stops.

    Raises:
        OptionError: a pattern that is no regular expression, finds no tensor or only tensors that always keep their
            type; a type that a row's length forbids; an importance matrix of another model, or none where a type needs
            one.
        ConvertError: ``target`` cannot be written, is the source, or does not fit the disk; the quantizer failed.
        ModelFileError: the source cannot be read, or is quantized already.
        CancelledError: ``progress`` returned False. OSError: the file cannot be written.
    """
    if target.exists() and any(part.exists() and os.path.samefile(part, target) for part in parts(source)):
        raise ConvertError(f"{target} is the source: choose another name")
    check_output(target, force)
    before = read_tensors(source)
    plan = plan_file(source, recipe, importance)
    free = shutil.disk_usage(target.parent).free
    if free < plan.size_bytes:
        raise ConvertError(
            f"{target} will take {_megabytes(plan.size_bytes)}, but only {_megabytes(free)} are free there: "
            "free some space or choose another place"
        )
    done, total = 0, sum(tensor.size_bytes for tensor in before.values())
    current: str | None = None

    def on_tensor(name: str) -> bool:
        nonlocal done, current
        done += before[current].size_bytes if current in before else 0
        current = name
        return progress is None or progress(done, total) is not False

    with whole_file(target, force) as place:
        try:
            run_quantizer(source, place, {**plan.options, "n_threads": n_threads}, on_tensor)
        except ModelFileError as error:
            if "iostream" in str(error):  # the quantizer says no more than that
                raise ConvertError(f"{target} cannot be written: the disk is full or fails") from None
            raise
        written = _checked(source, place, target, plan)
        result = QuantizedFile(
            path=target,
            sha256=file_sha256(place),
            size_bytes=place.stat().st_size,
            bits_per_weight=bits_per_weight(written),
            tensor_types=count_types(written.values()),
            fallbacks=plan.fallbacks,
            notices=plan.notices,
        )
    if progress is not None:
        progress(total, total)
    return result


def plan_file(source: Path, recipe: Recipe, importance: ImportanceMatrix | None = None) -> Plan:
    """What :func:`quantize_file` would write, without writing it; takes milliseconds. Raises as it does."""
    before = read_tensors(source)
    notices = _check_source(source, before)
    _check_importance(source, before, recipe, importance)
    options = _options(source, before, recipe, importance)
    _check_rows(before, options)
    found = _native.plan_quantization(os.fspath(source), _native.QuantizeOptions(**options))
    tensors = {name: kind for name, kind, _ in found}
    _check_overrides(before, tensors, recipe)
    _check_needs(tensors, recipe, options)
    fallbacks = [Fallback(name, asked, kind) for name, kind, asked in found if asked is not None]
    fallbacks += _head_fallback(source, before, tensors, recipe)
    return Plan(tensors, tuple(fallbacks), _size(source, before, tensors), tuple(notices), options)


# ---- what goes in ----------------------------------------------------------------------------------------------------


def _check_source(source: Path, tensors: Mapping[str, Tensor]) -> list[str]:
    """What to tell about the source. Raises ModelFileError where its tensors are quantized already."""
    kinds = count_types(tensor for tensor in tensors.values() if len(tensor.shape) > 1)
    poor = [kind for kind in kinds if kind in _BLOCKS and kind not in (*_WHOLE, "q8_0")]
    if poor:
        raise ModelFileError(
            f"{source} is quantized already ({kinds[poor[0]].n_tensors} tensors of {poor[0]}): each step loses "
            "quality, start from its F32, F16 or BF16 file"
        )
    if "q8_0" in kinds:
        return [f"{source.name} is quantized to Q8_0 already: an F16 or BF16 file as the source loses a little less"]
    return []


def _options(
    source: Path, tensors: Mapping[str, Tensor], recipe: Recipe, importance: ImportanceMatrix | None
) -> dict[str, Any]:
    """Arguments of ``_native.QuantizeOptions``, threads left out."""
    file_type, overrides = recipe.file_type, list(recipe.tensor_types)
    metadata: list[tuple[str, int | str]] = []
    number = file_type.number
    if overrides and file_type.base in _WHOLE:
        # The quantizer heeds overrides only for quantized file types: ask for one where nothing is left to choose.
        number = 7  # Q8_0
        overrides.append((".", file_type.base))
        metadata.append(("general.file_type", file_type.number))
    output_type, embedding_type = recipe.output_type, recipe.embedding_type
    if "output.weight" not in tensors:  # one matrix for both
        if output_type is not None and embedding_type not in (None, output_type):
            raise OptionError(
                f"{source} has one matrix for embedding and output, which cannot be both {embedding_type} and "
                f"{output_type}: give one of the two"
            )
        output_type, embedding_type = None, embedding_type or output_type
    head = _native.GgufFile(os.fspath(source), arrays=False)
    if head.alignment != _ALIGNMENT:
        metadata.append(("general.alignment", _ALIGNMENT))
    values: list[tuple[str, np.ndarray[Any, np.dtype[np.float32]]]] = []
    if importance is not None:
        values = [(name, mean) for name, mean in importance.means().items() if name in tensors]
        metadata += [("quantize.imatrix.entries_count", len(values))]
        metadata += [("quantize.imatrix.chunks_count", importance.chunk_count)]
        metadata += [("quantize.imatrix.sha256", importance.sha256)]
        if importance.datasets:
            text = importance.datasets[0].encode()[:127].decode("utf-8", "ignore")
            metadata += [("quantize.imatrix.dataset", text)]
    return {
        "file_type": number,
        "tensor_types": overrides,
        "output_type": output_type,
        "embedding_type": embedding_type,
        "importance": values,
        "metadata": metadata,
        "requantize": True,
    }


# ---- checks ----------------------------------------------------------------------------------------------------------


def _check_importance(
    source: Path, tensors: Mapping[str, Tensor], recipe: Recipe, importance: ImportanceMatrix | None
) -> None:
    if importance is None:
        if recipe.importance is not None:
            raise OptionError("the recipe names an importance matrix: give that matrix too")
        return
    if recipe.importance not in (None, importance.sha256):
        raise OptionError("the recipe names another importance matrix than the one that was given")
    importance.check_model({name: tensor.shape for name, tensor in tensors.items()}, source)


def _check_rows(tensors: Mapping[str, Tensor], options: Mapping[str, Any]) -> None:
    """Raise OptionError for an output or embedding type that does not fit the rows; libllama would end the process."""
    for name, option in (("output.weight", "output_type"), ("token_embd.weight", "embedding_type")):
        kind = options[option]
        if kind is None or name not in tensors:
            continue
        block, row = _BLOCKS[kind][0], tensors[name].shape[0]
        if row % block:
            fitting = ", ".join(other for other, (size, _, needs) in _BLOCKS.items() if row % size == 0 and not needs)
            raise OptionError(
                f"{name} cannot be {kind}: its rows of {row} are no multiple of {block} (possible: {fitting})"
            )


def _check_overrides(before: Mapping[str, Tensor], after: Mapping[str, str], recipe: Recipe) -> None:
    """Raise OptionError for a pattern that finds nothing, or nothing that can be given a type."""
    names = list(before)
    for pattern, kind in recipe.tensor_types:
        found = [name for name, hit in zip(names, _native.tensor_matches(pattern, names), strict=True) if hit]
        if not found:
            raise OptionError(
                f"tensor pattern {pattern!r} finds no tensor of the model: names are such as {_example(before)}"
            )
        if all(after[name] == before[name].type != kind for name in found):
            raise OptionError(
                f"tensor pattern {pattern!r} finds only tensors that always keep their type ({found[0]}): "
                "vectors, norms and a few small matrices do"
            )


def _check_needs(after: Mapping[str, str], recipe: Recipe, options: Mapping[str, Any]) -> None:
    """Raise OptionError for a tensor that must not be quantized without an importance matrix and has none."""
    have = {name for name, _ in options["importance"]}
    for name, kind in after.items():
        head = name in ("output.weight", "token_embd.weight", "per_layer_token_embd.weight")
        wanted = kind in NEED_IMPORTANCE or (kind == "q2_k" and recipe.type == "q2_k_s")
        if (_BLOCKS[kind][2] if head else wanted) and name not in have:
            missing = (
                "the importance matrix has no values for it" if have else "give an importance matrix (--calibrate)"
            )
            raise OptionError(
                f"{name} cannot be {kind} without an importance matrix: {missing}, or choose another type"
            )


def _checked(source: Path, place: Path, target: Path, plan: Plan) -> dict[str, Tensor]:
    """The tensors of the written file. Raises ConvertError where it is not what was planned."""
    try:
        written = read_tensors(place)
        keys = [_rim_keys(source), _rim_keys(place)]
    except ModelFileError as error:
        raise ConvertError(f"{target} came out damaged: {error}") from None
    if {name: tensor.type for name, tensor in written.items()} != plan.tensors or keys[0] != keys[1]:
        raise ConvertError(f"{target} came out different from what libllama's quantizer announced: it was not kept")
    return written


# ---- facts -----------------------------------------------------------------------------------------------------------


def _head_fallback(
    source: Path, before: Mapping[str, Tensor], after: Mapping[str, str], recipe: Recipe
) -> list[Fallback]:
    """The output matrix, where its rows forbid what it usually has: the one fallback that libllama does not log."""
    name = "output.weight" if "output.weight" in before else "token_embd.weight"
    base = recipe.file_type.base
    chosen = recipe.output_type or (recipe.embedding_type if name == "token_embd.weight" else None)
    patterns = [pattern for pattern, _ in recipe.tensor_types]
    manual = chosen is not None or any(_native.tensor_matches(pattern, [name])[0] for pattern in patterns)
    if name not in before or manual or after[name] != "q8_0" or before[name].shape[0] % _BLOCKS[base][0] == 0:
        return []
    if _native.GgufFile(os.fspath(source), arrays=False).metadata.get("general.architecture") == "falcon":
        return []  # always Q8_0 there
    few_bits = recipe.type.startswith(("iq1_", "iq2_")) or recipe.type == "iq3_xxs"
    return [Fallback(name, "q5_k" if few_bits else "q6_k", "q8_0")]


def _size(source: Path, before: Mapping[str, Tensor], after: Mapping[str, str]) -> int:
    """Bytes of the file: the head of the source, a little for new keys, and the tensors."""
    head = _native.GgufFile(os.fspath(source), arrays=False).data_offset + (128 << 10)
    size = 0
    for name, kind in after.items():
        block, block_bytes, _ = _BLOCKS.get(kind, (1, 8, False))
        size += prod(before[name].shape) // block * block_bytes + _ALIGNMENT
    return head + size


def _rim_keys(path: Path) -> dict[str, object]:
    metadata = _native.GgufFile(os.fspath(path)).metadata
    found = {key: value for key, value in metadata.items() if key.startswith("rim.")}
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in found.items()}


def _example(tensors: Mapping[str, Tensor]) -> str:
    matrices = [name for name, tensor in tensors.items() if len(tensor.shape) > 1 and name.startswith("blk.")]
    return ", ".join(matrices[:3]) or next(iter(tensors), "none")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
