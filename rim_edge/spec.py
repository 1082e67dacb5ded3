"""RimSpec: the memory-slot metadata of a model, the one place that reads, checks and writes ``rim.*``.

A memory block is ``m_k = <begin> <memory> x M <end>`` (RiM, arXiv 2605.30343, section 3); K blocks follow the rendered
prompt. The same fields stand in three places: GGUF metadata (``rim.*`` keys), an ONNX graph's ``metadata_props`` (the
same keys, as strings), and ``rim_config.json`` + ``rim_probe.safetensors`` in a Hugging Face folder.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from rim_edge.arrays import FloatArray
from rim_edge.errors import SpecError

SPEC_VERSION = 1
MAX_BLOCKS = 256  # libllama holds at most 256 sequences and each readout needs one
MAX_BLOCK_SIZE = 1024

#: texts of the memory tokens in models made by this project; ``<b>``, ``<m>``, ``</b>`` of the paper are HTML that
#: users type
BEGIN_TEXT, MEMORY_TEXT, END_TEXT = "<|rim_begin|>", "<|rim_memory|>", "<|rim_end|>"


class _KeyValueWriter(Protocol):
    """What ``RimSpec.to_gguf`` needs of ``gguf.GGUFWriter``."""

    def add_uint32(self, key: str, val: int) -> None: ...
    def add_string(self, key: str, val: str) -> None: ...
    def add_bool(self, key: str, val: bool) -> None: ...
    def add_array(self, key: str, val: Any) -> None: ...


@dataclass(frozen=True, eq=False)
class RimSpec:
    """How a model was trained to reason in memory.

    Attributes:
        begin_id, memory_id, end_id: token ids of ``<begin>``, ``<memory>``, ``<end>``; never sampled.
        block_count: K, blocks as trained.
        block_size: M, memory tokens per block; a block takes M + 2 positions.
        max_block_count: largest usable depth.
        prompt_template: Jinja, given ``question``; used when the model has no chat template, each turn then stands
            alone.
        answer_prefix: text that opens each readout, or None.
        answer_pattern: regular expression whose group 1 is the final answer, or None.
        trained_direct: answers with 0 blocks were trained.
        closed_vocabulary: words outside the training vocabulary should be named to the user.
        probe_weight: ``[n_blocks, n_embd] float32`` or None; score of block k = sigmoid(w_k . h_k + b_k).
        probe_bias: ``[n_blocks] float32`` or None.
        source: where the model came from: base, adapter, data, commit, ... (``rim.source.*``).
        version: version of this metadata, 1.

    Raises:
        SpecError: a field is out of its range or contradicts another.
    """

    begin_id: int
    memory_id: int
    end_id: int
    block_count: int = 8
    block_size: int = 2
    max_block_count: int = 0
    prompt_template: str | None = None
    answer_prefix: str | None = None
    answer_pattern: str | None = None
    trained_direct: bool = False
    closed_vocabulary: bool = False
    probe_weight: FloatArray | None = None
    probe_bias: FloatArray | None = None
    source: Mapping[str, str] = field(default_factory=dict)
    version: int = SPEC_VERSION

    def __post_init__(self) -> None:
        if self.max_block_count == 0:
            object.__setattr__(self, "max_block_count", self.block_count)
        self._check()

    # ---- shapes -----------------------------------------------------------------------------------------------------

    @property
    def block_tokens(self) -> tuple[int, ...]:
        """Token ids of one memory block, ``M + 2`` of them."""
        return (self.begin_id, *([self.memory_id] * self.block_size), self.end_id)

    @property
    def block_width(self) -> int:
        """Positions that one block takes: M + 2."""
        return self.block_size + 2

    @property
    def memory_ids(self) -> tuple[int, int, int]:
        """The three token ids that are never sampled."""
        return (self.begin_id, self.memory_id, self.end_id)

    @property
    def has_probe(self) -> bool:
        return self.probe_weight is not None

    def probe_score(self, block: int, hidden: FloatArray) -> float:
        """Probability that readout ``block`` (from 1) is correct; ``hidden``: ``[n_embd] float32`` at its end token."""
        if self.probe_weight is None or self.probe_bias is None:
            raise SpecError("the model has no probe (rim.probe.weight)")
        z = float(self.probe_weight[block - 1] @ hidden + self.probe_bias[block - 1])
        return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, z))))

    # ---- checks -----------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self.version > SPEC_VERSION:
            raise SpecError(_newer(self.version))
        if self.version < 1:
            raise SpecError(f"rim.version is {self.version}, expected {SPEC_VERSION}: convert the model again")
        _check_range("rim.block_count", self.block_count, 1, MAX_BLOCKS)
        _check_range("rim.block_size", self.block_size, 1, MAX_BLOCK_SIZE)
        _check_range("rim.max_block_count", self.max_block_count, self.block_count, MAX_BLOCKS)
        for key, value in zip(("begin_id", "memory_id", "end_id"), self.memory_ids, strict=True):
            _check_range(f"rim.token.{key}", value, 0, 2**31 - 1)
        if len(set(self.memory_ids)) != 3:
            raise SpecError(
                f"rim.token.begin_id, memory_id and end_id must differ, they are {self.memory_ids}: convert again"
            )
        if self.answer_pattern is not None:
            try:
                groups = re.compile(self.answer_pattern).groups
            except (re.error, RecursionError, OverflowError) as error:
                raise SpecError(
                    f"rim.answer_pattern is not a regular expression ({error}): {self.answer_pattern!r}"
                ) from None
            if groups < 1:
                raise SpecError(
                    f"rim.answer_pattern has no group 1, which must hold the answer: {self.answer_pattern!r}"
                )
        if (self.probe_weight is None) != (self.probe_bias is None):
            raise SpecError("rim.probe.weight and rim.probe.bias must both be present, or neither")
        if self.probe_weight is not None and self.probe_bias is not None:
            import numpy as np

            weight, bias = self.probe_weight, self.probe_bias
            if weight.ndim != 2 or bias.ndim != 1 or weight.shape[0] != bias.shape[0]:
                raise SpecError(f"the probe has shapes {weight.shape} and {bias.shape}, expected [K, n_embd] and [K]")
            if bias.shape[0] < self.max_block_count:
                raise SpecError(f"the probe covers {bias.shape[0]} blocks, the model runs up to {self.max_block_count}")
            if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
                raise SpecError(
                    "the probe (rim.probe.weight, rim.probe.bias) holds NaN or infinite values: train it again"
                )

    def check_model(self, n_vocab: int, n_embd: int) -> None:
        """Raise SpecError where the metadata contradicts a model of ``n_vocab`` tokens and width ``n_embd``."""
        for key, value in zip(("begin_id", "memory_id", "end_id"), self.memory_ids, strict=True):
            if value >= n_vocab:
                raise SpecError(
                    f"rim.token.{key} is {value}, but the vocabulary has {n_vocab} tokens: convert the model again"
                )
        if self.probe_weight is not None and self.probe_weight.shape[1] != n_embd:
            raise SpecError(f"the probe has width {self.probe_weight.shape[1]}, but the model has width {n_embd}")

    # ---- GGUF -------------------------------------------------------------------------------------------------------

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any], n_embd: int | None = None) -> RimSpec | None:
        """Read the ``rim.*`` keys; None where there is no ``rim.version`` (a plain model).

        Args:
            metadata: key to int, float, bool, str, or numpy array (as ``_native.GgufFile.metadata`` gives them).
            n_embd: width of the model, needed to shape the probe.

        Raises:
            SpecError: keys missing, of a wrong type, or contradictory.
        """
        if "rim.version" not in metadata:
            stray = sorted(key for key in metadata if key.startswith("rim."))
            if stray:
                raise SpecError(
                    f"{stray[0]} is there but rim.version is missing: the memory-slot metadata is incomplete"
                )
            return None
        version = _typed(metadata, "rim.version", int)
        if version > SPEC_VERSION:  # before the other keys: a newer version may have changed them
            raise SpecError(_newer(version))
        weight = _array(metadata, "rim.probe.weight")
        bias = _array(metadata, "rim.probe.bias")
        if weight is not None and bias is not None:
            if n_embd is None or weight.size != bias.size * n_embd:
                raise SpecError(f"rim.probe.weight has {weight.size} values, expected {bias.size} blocks x {n_embd}")
            weight = weight.reshape(bias.size, n_embd)
        return cls(
            version=version,
            begin_id=_typed(metadata, "rim.token.begin_id", int),
            memory_id=_typed(metadata, "rim.token.memory_id", int),
            end_id=_typed(metadata, "rim.token.end_id", int),
            block_count=_typed(metadata, "rim.block_count", int),
            block_size=_typed(metadata, "rim.block_size", int),
            max_block_count=_typed(metadata, "rim.max_block_count", int, _typed(metadata, "rim.block_count", int)),
            prompt_template=_typed(metadata, "rim.prompt_template", str, None),
            answer_prefix=_typed(metadata, "rim.answer_prefix", str, None) or None,
            answer_pattern=_typed(metadata, "rim.answer_pattern", str, None) or None,
            trained_direct=_typed(metadata, "rim.trained_direct", bool, False),
            closed_vocabulary=_typed(metadata, "rim.closed_vocabulary", bool, False),
            probe_weight=weight,
            probe_bias=bias,
            source={
                k[len("rim.source.") :]: _typed(metadata, k, str)
                for k in sorted(metadata)
                if k.startswith("rim.source.")
            },
        )

    def to_gguf(self, writer: _KeyValueWriter) -> None:
        """Add every ``rim.*`` key to a ``gguf.GGUFWriter``, in a fixed order."""
        for key, value in self._items():
            if isinstance(value, bool):
                writer.add_bool(key, value)
            elif isinstance(value, int):
                writer.add_uint32(key, value)
            elif isinstance(value, str):
                writer.add_string(key, value)
            else:
                writer.add_array(key, value.ravel().tolist())  # gguf-py takes Python floats and writes them as f32

    # ---- ONNX -------------------------------------------------------------------------------------------------------

    def to_props(self) -> dict[str, str]:
        """The same keys as strings: decimal integers, ``true``/``false``, arrays as base64 of little-endian f32."""
        props = {}
        for key, value in self._items():
            if isinstance(value, bool):
                props[key] = "true" if value else "false"
            elif isinstance(value, (int, str)):
                props[key] = str(value)
            else:
                props[key] = base64.b64encode(value.astype("<f4").tobytes()).decode("ascii")
        return props

    @classmethod
    def from_props(cls, props: Mapping[str, str], n_embd: int | None = None) -> RimSpec | None:
        """Read what :meth:`to_props` wrote; None where there is no ``rim.version``."""
        metadata: dict[str, Any] = {}
        for key, text in props.items():
            if not key.startswith("rim."):
                continue
            try:
                if key in _INT_KEYS:
                    metadata[key] = int(text)
                elif key in _BOOL_KEYS:
                    metadata[key] = {"true": True, "false": False}[text]
                elif key in _ARRAY_KEYS:
                    import numpy as np

                    metadata[key] = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
                else:
                    metadata[key] = text
            except (ValueError, KeyError):
                raise SpecError(f"{key} cannot be read: {text[:40]!r}") from None
        return cls.from_gguf(metadata, n_embd)

    # ---- Hugging Face folder ----------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """The fields of ``rim_config.json``: all but the probe, which stands in ``rim_probe.safetensors``."""
        skip = {"probe_weight", "probe_bias"}
        return {
            f.name: (dict(self.source) if f.name == "source" else getattr(self, f.name))
            for f in fields(self)
            if f.name not in skip
        }

    @classmethod
    def from_json(
        cls, config: Mapping[str, Any], probe_weight: FloatArray | None = None, probe_bias: FloatArray | None = None
    ) -> RimSpec:
        """Read ``rim_config.json`` (as a mapping) and, where there is one, the probe ``[K, n_embd]``, ``[K]``."""
        known = {f.name for f in fields(cls)} - {"probe_weight", "probe_bias", "source"}
        version = config.get("version")
        if type(version) is int and version > SPEC_VERSION:  # before the fields: a newer version may have changed them
            raise SpecError(_newer(version))
        unknown = sorted(set(config) - known - {"source"})
        if unknown:
            raise SpecError(
                f"rim_config.json has an unknown field {unknown[0]!r}; known are {', '.join(sorted(known))}, source"
            )
        keys = {"begin_id": "rim.token.begin_id", "memory_id": "rim.token.memory_id", "end_id": "rim.token.end_id"}
        metadata: dict[str, Any] = {
            keys.get(k, f"rim.{k}"): v for k, v in config.items() if k != "source" and v is not None
        }
        metadata.setdefault("rim.version", SPEC_VERSION)
        source = config.get("source") or {}
        if not isinstance(source, Mapping):
            raise SpecError(f"source in rim_config.json has the type {type(source).__name__}, expected an object")
        metadata.update({f"rim.source.{k}": v for k, v in source.items()})
        n_embd = None
        if (probe_weight is None) != (probe_bias is None):
            raise SpecError("rim_probe.safetensors must hold both the weight and the bias of the probe")
        if probe_weight is not None and probe_bias is not None:
            metadata["rim.probe.weight"], metadata["rim.probe.bias"] = probe_weight.ravel(), probe_bias
            n_embd = int(probe_weight.shape[-1])
        spec = cls.from_gguf(metadata, n_embd)
        assert spec is not None
        return spec

    # ---- one order for all writers ----------------------------------------------------------------------------------

    def _items(self) -> list[tuple[str, Any]]:
        items: list[tuple[str, Any]] = [
            ("rim.version", self.version),
            ("rim.block_count", self.block_count),
            ("rim.block_size", self.block_size),
            ("rim.max_block_count", self.max_block_count),
            ("rim.token.begin_id", self.begin_id),
            ("rim.token.memory_id", self.memory_id),
            ("rim.token.end_id", self.end_id),
            ("rim.prompt_template", self.prompt_template),
            ("rim.answer_prefix", self.answer_prefix),
            ("rim.answer_pattern", self.answer_pattern),
            ("rim.trained_direct", self.trained_direct),
            ("rim.closed_vocabulary", self.closed_vocabulary),
            ("rim.probe.weight", self.probe_weight),
            ("rim.probe.bias", self.probe_bias),
        ]
        items += [(f"rim.source.{k}", self.source[k]) for k in sorted(self.source)]
        return [(key, value) for key, value in items if value is not None]


_INT_KEYS = {
    "rim.version",
    "rim.block_count",
    "rim.block_size",
    "rim.max_block_count",
    "rim.token.begin_id",
    "rim.token.memory_id",
    "rim.token.end_id",
}
_BOOL_KEYS = {"rim.trained_direct", "rim.closed_vocabulary"}
_ARRAY_KEYS = {"rim.probe.weight", "rim.probe.bias"}
_REQUIRED: Any = object()


def _newer(version: int) -> str:
    return f"rim.version is {version}, this RiM Edge reads up to {SPEC_VERSION}: upgrade rim-edge to run this model"


def _check_range(key: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise SpecError(f"{key} is {value}, expected {low} to {high}: convert the model again")


def _typed(metadata: Mapping[str, Any], key: str, kind: type, default: Any = _REQUIRED) -> Any:
    if key not in metadata:
        if default is _REQUIRED:
            raise SpecError(f"{key} is missing: the memory-slot metadata is incomplete, convert the model again")
        return default
    value = metadata[key]
    if type(value) is not kind:  # bool is an int to isinstance
        raise SpecError(f"{key} has the type {type(value).__name__}, expected {kind.__name__}: convert the model again")
    return value


def _array(metadata: Mapping[str, Any], key: str) -> FloatArray | None:
    if key not in metadata:
        return None
    import numpy as np

    value = metadata[key]
    if not isinstance(value, np.ndarray) or value.ndim != 1 or value.dtype.kind != "f":
        raise SpecError(f"{key} is not an array of f32: convert the model again")
    return value.astype(np.float32)
