"""The head of an ONNX file, read before onnxruntime sees it: metadata, inputs, outputs, and which other files it names.

A model file is untrusted: its external data must lie beside it, and be as long as the tensors claim. The protobuf wire
format is walked over a memory map, weights are skipped (``onnx.proto`` of ONNX IR 10 gives the field numbers); the
``onnx`` package is not needed.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from rim_edge.errors import ModelFileError

_MAX_BYTES = 2**31  # a protobuf message cannot be longer; larger models keep their weights in external files
_MAX_DEPTH = 8  # of subgraphs inside nodes
_EXTERNAL = 1  # TensorProto.DataLocation

#: where other messages hang below each kind of message: field number to kind
_CHILDREN: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 14: "property", 25: "function"},
    "graph": {1: "node", 5: "tensor", 11: "input", 12: "output", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}


@dataclass
class OnnxHead:
    """What the file says.

    Attributes:
        metadata: ``metadata_props``.
        inputs, outputs: names of the graph's inputs and outputs.
        shapes: dimensions of the graph's initializers, by name.
        kinds: their element types, numbers of ``TensorProto.DataType``.
        external: names of the files beside it that hold weights, with the bytes they must have at least.
    """

    metadata: dict[str, str] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    external: dict[str, int] = field(default_factory=dict)


def read_head(path: Path) -> OnnxHead:
    """Read and check the head of ``path``.

    Raises:
        ModelFileError: not an ONNX file, cut short, or its external data is missing, too short, or elsewhere.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            if not 0 < size <= _MAX_BYTES:
                raise ModelFileError(f"{path}: {size} bytes cannot be an ONNX model: convert the model again")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                head = _Reader(path, data).read()
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such file") from None
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror})") from None
    for name, n_bytes in sorted(head.external.items()):
        _check_external(path, name, n_bytes)
    return head


def _check_external(path: Path, name: str, n_bytes: int) -> None:
    parts = PurePosixPath(name)
    if not name or parts.is_absolute() or ".." in parts.parts or "\\" in name or ":" in name or "\0" in name:
        raise ModelFileError(f"{path}: keeps weights in {name!r}, outside of its folder: do not use this model")
    file = path.parent / name
    if not file.is_file():
        raise ModelFileError(f"{file}: this file with the model's weights is missing: copy or convert the model again")
    if file.stat().st_size < n_bytes:
        raise ModelFileError(
            f"{file}: has {file.stat().st_size} bytes, the model needs {n_bytes}: copy or convert the model again"
        )


class _Reader:
    """Walks the messages of one file."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path = path
        self._data = data
        self._head = OnnxHead()

    def read(self) -> OnnxHead:
        self._walk("model", 0, len(self._data), 0)
        if not self._head.inputs or not self._head.outputs:
            raise self._damaged("has no graph")
        return self._head

    def _walk(self, kind: str, at: int, end: int, depth: int) -> None:
        if depth > _MAX_DEPTH * 3:
            raise self._damaged("has subgraphs inside subgraphs without end")
        children = _CHILDREN[kind]
        for number, start, stop in self._messages(at, end):
            child = children.get(number)
            if child == "tensor":
                self._tensor(start, stop, in_graph=kind == "graph")
            elif child == "property":
                self._property(start, stop)
            elif child in ("input", "output"):
                names = self._head.inputs if child == "input" else self._head.outputs
                if depth == 1:  # of the model's own graph, not of a subgraph
                    names.append(self._text(start, stop, 1))
            elif child is not None:
                self._walk(child, start, stop, depth + 1)

    def _property(self, at: int, end: int) -> None:
        key, value = self._text(at, end, 1), self._text(at, end, 2)
        if self._head.metadata.setdefault(key, value) != value:
            raise self._damaged(f"gives {key!r} twice")

    def _tensor(self, at: int, end: int, in_graph: bool) -> None:
        """Note the external file of a tensor, and the shape of an initializer."""
        name, dims, external = "", list[int](), dict[str, str]()
        is_external, kind = False, 0
        for number, wire, start, stop in self._fields(at, end):
            if number == 1:
                dims += [start] if wire == 0 else self._varints(start, stop)
            elif number == 2 and wire == 0:
                kind = start
            elif number == 8 and wire == 2:
                name = self._decode(start, stop)
            elif number == 13 and wire == 2:
                external[self._text(start, stop, 1)] = self._text(start, stop, 2)
            elif number == 14 and wire == 0:
                is_external = start == _EXTERNAL
        if in_graph:
            self._head.shapes[name], self._head.kinds[name] = tuple(dims), kind
        if is_external or external:
            try:
                needed = int(external.get("offset", "0")) + int(external.get("length", "0"))
            except ValueError:
                raise self._damaged(f"places the tensor {name!r} nowhere") from None
            place = external.get("location", "")
            self._head.external[place] = max(needed, self._head.external.get(place, 0))

    # ---- wire format ------------------------------------------------------------------------------------------------

    def _fields(self, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Fields of a message: number, wire type, and (value, 0) for a varint or (start, end) for bytes."""
        while at < end:
            tag, at = self._varint(at, end)
            number, wire = tag >> 3, tag & 7
            if wire == 0:
                value, at = self._varint(at, end)
                yield number, wire, value, 0
                continue
            if wire == 2:
                length, at = self._varint(at, end)
            elif wire in (1, 5):
                length = 8 if wire == 1 else 4
            else:
                raise self._damaged("is not an ONNX file")
            if length > end - at:
                raise self._damaged("is not an ONNX file, or is cut short")
            yield number, wire, at, at + length
            at += length

    def _messages(self, at: int, end: int) -> Iterator[tuple[int, int, int]]:
        return ((number, start, stop) for number, wire, start, stop in self._fields(at, end) if wire == 2)

    def _text(self, at: int, end: int, wanted: int) -> str:
        """The text field ``wanted`` of a message; empty where it is missing."""
        found = [(start, stop) for number, start, stop in self._messages(at, end) if number == wanted]
        return self._decode(*found[-1]) if found else ""

    def _decode(self, start: int, stop: int) -> str:
        try:
            return self._data[start:stop].decode("utf-8")
        except UnicodeDecodeError:
            raise self._damaged("has text that is not UTF-8") from None

    def _varints(self, at: int, end: int) -> list[int]:
        values = []
        while at < end:
            value, at = self._varint(at, end)
            values.append(value)
        return values

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while at < end and shift < 64:
            byte = self._data[at]
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                return value, at
        raise self._damaged("is not an ONNX file, or is cut short")

    def _damaged(self, what: str) -> ModelFileError:
        return ModelFileError(f"{self._path}: {what}: copy or convert the model again")
