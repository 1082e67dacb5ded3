"""What decides the bytes of a quantized file: its type, overrides, and the importance matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from rim_edge import _native
from rim_edge.errors import OptionError


@dataclass(frozen=True)
class FileType:
    """A file type of libllama: a mixture of tensor types.

    Attributes:
        name: as llama.cpp writes it, in lower case.
        number: ``general.file_type`` of such a file.
        base: type of most tensors; some get more or fewer bits by their place in the model.
        needs_importance: the quantizer refuses to make it without an importance matrix.
    """

    name: str
    number: int
    base: str
    needs_importance: bool


#: types of tensors that must not be made without an importance matrix (libllama's ``tensor_requires_imatrix``)
NEED_IMPORTANCE = frozenset({"iq3_xxs", "iq2_xxs", "iq2_xs", "iq2_s", "iq1_m", "iq1_s"})

#: every file type that the pinned libllama's quantizer makes, large to small
FILE_TYPES: Mapping[str, FileType] = MappingProxyType(
    {
        name: FileType(name, number, base, base in NEED_IMPORTANCE or name in ("q2_k_s", "iq3_xs"))
        for name, (number, base) in _native.file_types().items()
    }
)

#: every type that a single tensor can be given
TENSOR_TYPES: tuple[str, ...] = tuple(_native.tensor_types())

_ALIASES = {"q5_k": "q5_k_m", "q4_k": "q4_k_m", "q3_k": "q3_k_m"}  # as llama-quantize reads them


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the bytes of a file, besides its source. Names in any case, kept in lower case.

    Attributes:
        type: file type, a key of ``FILE_TYPES`` (``q4_k`` is ``q4_k_m``, and so on).
        tensor_types: pairs of a regular expression (ECMAScript), to be found in a tensor's name, and a tensor type;
            the first match wins.
        output_type: type of the output matrix; of the embedding, where the model has one matrix for both.
        embedding_type: type of the token embedding.
        importance: SHA-256 of the importance matrix used, if any.

    Raises:
        OptionError: a type that libllama does not know, with the list of those that it does.
    """

    type: str
    tensor_types: tuple[tuple[str, str], ...] = ()
    output_type: str | None = None
    embedding_type: str | None = None
    importance: str | None = None

    def __post_init__(self) -> None:
        name = self.type.strip().lower()
        name = _ALIASES.get(name, name)
        if name not in FILE_TYPES:
            raise OptionError(f"file type {self.type!r} is unknown: use one of {', '.join(FILE_TYPES)}")
        object.__setattr__(self, "type", name)
        overrides = tuple((pattern, tensor_type(kind)) for pattern, kind in self.tensor_types)
        object.__setattr__(self, "tensor_types", overrides)
        for field in ("output_type", "embedding_type"):
            value = getattr(self, field)
            object.__setattr__(self, field, None if value is None else tensor_type(value))

    @property
    def file_type(self) -> FileType:
        return FILE_TYPES[self.type]

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON takes them: strings, None, and ``tensor_types`` as a list of pairs."""
        return asdict(self) | {"tensor_types": [list(pair) for pair in self.tensor_types]}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Recipe:
        """The inverse of :meth:`as_dict`."""
        pairs = tuple((str(pattern), str(kind)) for pattern, kind in fields.get("tensor_types", ()))
        return cls(**{**fields, "tensor_types": pairs})


def tensor_type(name: str) -> str:
    """``name`` as the library writes it. Raises OptionError, with the list, where it is no tensor type."""
    known = name.strip().lower()
    if known not in TENSOR_TYPES:
        raise OptionError(f"tensor type {name!r} is unknown: use one of {', '.join(TENSOR_TYPES)}")
    return known


def parse_tensor_type(text: str) -> tuple[str, str]:
    """``REGEX=TYPE`` as a pair. Raises OptionError where it is none."""
    pattern, equals, kind = text.rpartition("=")
    if not equals or not pattern:
        raise OptionError(f"tensor type {text!r} is not of the form REGEX=TYPE, such as 'ffn_down=q6_k'")
    _native.tensor_matches(pattern, [])  # raises for a broken expression
    return pattern, tensor_type(kind)
