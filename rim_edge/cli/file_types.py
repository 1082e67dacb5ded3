"""What a GGUF file claims its weights to be (name, ``general.file_type``) against what they are."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rim_edge.memory import Tensor

#: ``general.file_type`` (llama.h: ``enum llama_ftype``) to the usual name of the mixture
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K",
    19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL",
    26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0",
    37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4", 40: "Q1_0", 41: "Q2_0",
}  # fmt: skip
_NAME = re.compile(
    r"(?<![A-Z0-9])(I?Q\d_(?:K(?:_[SML])?|[01]|NL|XXS|XS|S|M)|TQ[12]_0|MXFP4(?:_MOE)?|NVFP4|BF16|F16|F32)(?![A-Z0-9])"
)
# mixtures that are not named after the tensor type of most of their weights
_BASE = {"Q2_K_S": "Q2_K", "IQ3_XS": "IQ3_S", "IQ3_M": "IQ3_S", "IQ2_M": "IQ2_S", "MXFP4_MOE": "MXFP4"}


@dataclass(frozen=True)
class TypeGroup:
    """All tensors of one type: how many, how many values, how many bytes."""

    type: str
    n_tensors: int
    n_params: int
    size_bytes: int


def by_type(tensors: Sequence[Tensor]) -> list[TypeGroup]:
    """The tensors grouped by type, the most bytes first."""
    found: dict[str, list[int]] = {}
    for tensor in tensors:
        n_params = 1
        for size in tensor.shape:
            n_params *= size
        group = found.setdefault(tensor.type, [0, 0, 0])
        group[0] += 1
        group[1] += n_params
        group[2] += tensor.size_bytes
    groups = [TypeGroup(name, *numbers) for name, numbers in found.items()]
    return sorted(groups, key=lambda group: (-group.size_bytes, group.type))


def main_type(tensors: Sequence[Tensor]) -> str:
    """The type of most of the layers' matrices by bytes, embeddings and output left out; empty without matrices."""
    matrices = [t for t in tensors if len([size for size in t.shape if size > 1]) > 1]
    layers = [t for t in matrices if t.name.startswith("blk.")]
    groups = by_type(layers or matrices)
    return groups[0].type if groups else ""


def remarks(path: str, file_type: object, tensors: Sequence[Tensor]) -> list[str]:
    """One sentence for each claim of the file that its tensors do not bear out."""
    real = main_type(tensors)
    claims = []
    stated = FILE_TYPES.get(file_type) if isinstance(file_type, int) else None
    if stated is not None:
        claims.append((f"general.file_type says {stated}", stated))
    named = _NAME.search(os.path.basename(path).upper())
    if named is not None and (stated is None or named.group() != stated):
        claims.append((f"the file's name says {named.group()}", named.group()))
    return [f"{claim}, but most weights are {real}" for claim, name in claims if real and base_type(name) != real]


def base_type(mixture: str) -> str:
    """The tensor type that a mixture is named after: ``Q4_K_M`` to ``Q4_K``."""
    if mixture in _BASE:
        return _BASE[mixture]
    return re.sub(r"(_K)_[SML]$", r"\1", mixture)
