"""Reading GGUF heads: what a good file gives, and how every kind of bad file is refused."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf_fuzz import run
from rim_edge._native import GgufFile, Model
from shapes import N_VOCAB, TOKENS, default_spec, make_model, random_probe

from rim_edge.errors import ModelFileError
from rim_edge.spec import RimSpec

KINDS = gguf.GGUFValueType


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("gguf") / "model.gguf", n_embd=32, n_layer=1, n_head=2)


def refusal(path: Path) -> str:
    """The message for a file, the same from the reader and from the loader; one line that names the file."""
    with pytest.raises(ModelFileError) as loading:
        Model(str(path))
    message = str(loading.value)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
    return message.removeprefix(f"{path}: ")


# ---- good files ------------------------------------------------------------------------------------------------------


def test_metadata_types(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "x.u8": (KINDS.UINT8, 255),
        "x.i8": (KINDS.INT8, -1),
        "x.u16": (KINDS.UINT16, 65535),
        "x.i16": (KINDS.INT16, -2),
        "x.u64": (KINDS.UINT64, 2**64 - 1),
        "x.i64": (KINDS.INT64, -(2**63)),
        "x.f64": (KINDS.FLOAT64, 0.1),
        "x.f32": 0.5,
        "x.bool": True,
        "x.text": "naïve \U0001f600",
        "x.ints": [1, -2, 3],
        "x.reals": [0.25, 1.5],
        "x.bools": [True, False],
        "x.texts": ["", "é"],
    }
    metadata = GgufFile(str(make_model(tmp_path / "m.gguf", metadata=values))).metadata
    for key, value in values.items():
        found, expected = metadata[key], value[1] if isinstance(value, tuple) else value
        if isinstance(expected, list) and isinstance(expected[0], str):
            assert [text.decode() for text in found] == expected  # type: ignore[attr-defined]
        elif isinstance(expected, list):
            assert isinstance(found, np.ndarray) and found.tolist() == expected
        else:
            assert (found, type(found)) == (expected, type(expected))
    kinds = {key: metadata[key].dtype for key in ("x.ints", "x.reals", "x.bools")}  # type: ignore[attr-defined]
    assert kinds == {"x.ints": np.int32, "x.reals": np.float32, "x.bools": np.bool_}


def test_tensors(model: Path) -> None:
    file = GgufFile(model)
    assert (file.version, file.alignment, file.size_bytes, file.path) == (3, 32, model.stat().st_size, str(model))
    tensors = {tensor.name: tensor for tensor in file.tensors}
    embedding = tensors["token_embd.weight"]
    assert (embedding.shape, embedding.type, embedding.size_bytes) == ((32, N_VOCAB), "F32", 32 * N_VOCAB * 4)
    assert file.tensors[0].offset == file.data_offset
    reader = gguf.GGUFReader(model)
    assert {t.name: (t.data_offset, t.n_bytes) for t in reader.tensors} == {
        name: (tensor.offset, tensor.size_bytes) for name, tensor in tensors.items()
    }


def test_vocabulary_is_read_when_asked(model: Path) -> None:
    tokens: Any = GgufFile(model).metadata["tokenizer.ggml.tokens"]
    assert len(tokens) == N_VOCAB
    assert [token.decode() for token in tokens] == TOKENS
    assert tokens[-1] == tokens[N_VOCAB - 1]
    with pytest.raises(IndexError):
        tokens[N_VOCAB]
    assert "tokenizer.ggml.tokens" not in GgufFile(model, arrays=False).metadata


def test_metadata_is_a_mapping(model: Path) -> None:
    for arrays in (True, False):
        metadata = GgufFile(model, arrays=arrays).metadata
        assert isinstance(metadata, Mapping)
        copy = dict(metadata)
        assert list(copy) == list(metadata) == list(metadata.keys()) == [key for key, _ in metadata.items()]
        assert len(metadata) == len(copy) == len(list(metadata.values()))
        assert ("tokenizer.ggml.token_type" in metadata) == arrays
        assert metadata["general.architecture"] == metadata.get("general.architecture") == copy["general.architecture"]
        assert metadata.get("no.such.key") is None and metadata.get("no.such.key", 7) == 7
        with pytest.raises(KeyError, match="missing key"):
            metadata["missing key"]


def test_some_numbers_of_an_array(tmp_path: Path) -> None:
    file = GgufFile(make_model(tmp_path / "m.gguf", metadata={"x.ints": [5, -6, 7], "x.reals": [0.25]}))
    assert file.numbers_at("x.ints", 3, [2, 0, 1]) == [7, 5, -6]
    assert file.numbers_at("x.ints", 3, []) == []
    assert file.numbers_at("x.ints", 4, [3]) is None
    assert file.numbers_at("x.reals", 1, [0]) == [0.25]
    with pytest.raises(IndexError):
        file.numbers_at("x.ints", 3, [3])
    for key, count in (("general.architecture", 1), ("tokenizer.ggml.tokens", N_VOCAB), ("missing key", 1)):
        assert file.numbers_at(key, count, [0]) is None


def test_memory_slot_metadata(tmp_path: Path) -> None:
    spec = default_spec(answer_prefix="=", **random_probe(8, 64))
    metadata = GgufFile(make_model(tmp_path / "m.gguf", spec=spec)).metadata
    found = RimSpec.from_gguf(metadata, 64)
    assert found is not None and found.to_props() == spec.to_props()


# ---- not GGUF at all -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"G", "text file"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\n\n  <HTML><head>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"PK\x03\x04" + bytes(100), "zip archive"),
        (b"\x80\x02}q\x00", "pickle"),
        (struct.pack("<Q", 20) + b'{"a":{"dtype":"F32"}}' + bytes(64), "safetensors"),
        (b"tjgg" + bytes(100), "before GGUF"),
        (b"\x1f\x8b\x08" + bytes(100), "compressed"),
        (b'{"model_type": "llama"}', "JSON"),
        (b"just some words\n", "text file"),
        (bytes(5000), "zeros"),
        (b"\x08\x07\x12\x07pytorch onnx", "ONNX"),
        (b"\x7fELF" + bytes(range(256)), "other bytes"),
        (b"GGUF", "the version at byte 4 does not fit"),
        (b"GGUF" + struct.pack(">IQQ", 3, 1, 1), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 1, 1, 1), "version 1"),
        (b"GGUF" + struct.pack("<IQQ", 4, 1, 1), "version 4"),
        (b"GGUF" + struct.pack("<IQQ", 0, 1, 1), "version 0"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**63), "metadata keys, more than"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**40, 0), "tensors, more than"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "general.architecture"),
    ],
)
def test_not_a_model(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    assert expected in refusal(path)


def test_nothing_there(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "nothing.gguf")
    assert "is a directory" in refusal(tmp_path)
    with pytest.raises(ModelFileError, match="path of the model is empty"):
        Model("")
    with pytest.raises(ValueError, match="null"):
        Model("a\0b")
    assert "is not a regular file" in refusal(Path("/dev/null"))


# ---- damaged heads ---------------------------------------------------------------------------------------------------


def text(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


def head(values: list[bytes], tensors: list[bytes] | None = None, n_values: int | None = None) -> bytes:
    """A file of hand-made entries: key-values, then tensor infos, then 4 KiB of data."""
    tensors = tensors or []
    count = len(values) if n_values is None else n_values
    data = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), count) + b"".join(values) + b"".join(tensors)
    return data + bytes(-len(data) % 32 + 4096)


def number(key: bytes, value: int, kind: int = 4) -> bytes:
    return text(key) + struct.pack("<II", kind, value)


def tensor(name: bytes, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape) + struct.pack("<IQ", kind, offset)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (head([number(b"", 1)]), "metadata key 1 of 1 at byte 24 is empty"),
        (head([number(b"\xff\xfe", 1)]), "is not text"),
        (head([number(b"a\0b", 1)]), r"is not text: 'a\x00b'"),
        (head([number(b"k" * 70000, 1)]), "claims to be 70000 bytes long"),
        (head([number(b"k", 1), number(b"k", 2)]), "'k' at byte 41 is there twice"),
        (head([text(b"k") + struct.pack("<I", 13) + bytes(8)]), "is 13, which is no GGUF type"),
        (head([text(b"k") + struct.pack("<IQ", 8, 2**62)]), "the value of metadata key 'k'"),
        (head([text(b"k") + struct.pack("<IIQ", 9, 9, 1)]), "array of arrays"),
        (head([text(b"k") + struct.pack("<IIQ", 9, 77, 1)]), "is 77, which is no GGUF type"),
        (head([text(b"k") + struct.pack("<IIQ", 9, 10, 2**61)]), "elements, more than the file can hold"),
        (head([text(b"k") + struct.pack("<IIQ", 9, 8, 2**61)]), "strings, more than the file can hold"),
        (head([text(b"k") + struct.pack("<IIQQ", 9, 8, 1, 2**20)]), "a string of metadata key 'k'"),
        (head([number(b"k", 1)], n_values=300), "is empty"),
        (head([number(b"general.alignment", 0)]), "general.alignment is 0"),
        (head([number(b"general.alignment", 48)]), "general.alignment is 48"),
        (head([number(b"general.alignment", 32, kind=5)]), "general.alignment is not a u32"),
        (head([], [tensor(b"", (1,))]), "is not a text of 1 to 63 bytes"),
        (head([], [tensor(b"t" * 64, (1,))]), "is not a text of 1 to 63 bytes"),
        (head([], [tensor(b"t\0", (1,))]), "is not a text of 1 to 63 bytes"),
        (head([], [tensor(b"t", (8,)), tensor(b"t", (8,), offset=32)]), "tensor 't' at byte 57 is there twice"),
        (head([], [tensor(b"t", (1, 1, 1, 1, 1))]), "has 5 dimensions"),
        (head([], [tensor(b"t", (4, 0))]), "has a dimension of size 0"),
        (head([], [tensor(b"t", (2**40, 2**40))]), "impossible shape"),
        (head([], [tensor(b"t", (2**62,))]), "impossible size"),
        (head([], [tensor(b"t", (8,), kind=4)]), "has the type 4"),
        (head([], [tensor(b"t", (8,), kind=10**6)]), "has the type 1000000"),
        (head([], [tensor(b"t", (33,), kind=8)]), "no multiple of 32 as q8_0 needs"),
        (head([], [tensor(b"t", (8,), offset=1)]), "is said to start at byte 1 of the data, expected 0"),
        (head([], [tensor(b"t", (8,)), tensor(b"u", (8,), offset=64)]), "byte 64 of the data, expected 32"),
        (head([], [tensor(b"t", (2000,))]), "but the file ends at byte"),
    ],
)
def test_damaged_head(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    assert expected in refusal(path)
    with pytest.raises(ModelFileError):
        GgufFile(path)


def test_truncated_anywhere(model: Path, tmp_path: Path) -> None:
    data = model.read_bytes()
    path = tmp_path / "model.gguf"
    end = GgufFile(model).data_offset
    for size in [*range(1, 400, 7), *range(400, end, 97), end - 1, end, end + 1, len(data) - 1]:
        path.write_bytes(data[:size])
        with pytest.raises(ModelFileError):
            GgufFile(path)
    path.write_bytes(data[: len(data) - 40])
    assert "the download is unfinished" in refusal(path)


# ---- well-formed files that make no sense ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"general.architecture": "nonesuch"}, "its architecture 'nonesuch' is unknown to libllama"),
        ({"general.architecture": None}, "general.architecture"),
        ({"general.architecture": "clip"}, "vision part"),
        ({"general.type": "adapter"}, "LoRA adapter"),
        ({"general.type": "imatrix"}, "importance matrix"),
        ({"llama.block_count": 0}, "llama.block_count is 0, expected 1 to 512"),
        ({"llama.block_count": 100000}, "llama.block_count is 100000"),
        ({"llama.block_count": 3}, "libllama cannot load it"),
        ({"llama.block_count": None}, "llama.block_count"),
        ({"llama.embedding_length": 0}, "llama.embedding_length is 0"),
        ({"llama.embedding_length": 48}, "libllama cannot load it"),
        ({"llama.attention.head_count": 0}, "llama.attention.head_count is 0"),
        ({"llama.attention.head_count": 1000}, "llama.attention.head_count is 1000"),
        ({"llama.attention.head_count_kv": 0}, "llama.attention.head_count_kv is 0"),
        ({"llama.attention.head_count_kv": 3}, "llama.attention.head_count_kv is 3, expected a divisor of 4 heads"),
        ({"llama.attention.key_length": 0}, "llama.attention.key_length is 0"),
        ({"llama.rope.dimension_count": 17}, "llama.rope.dimension_count is 17, expected an even number"),
        ({"llama.context_length": 0}, "llama.context_length is 0"),
        ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "layer_norm_rms_epsilon is nan"),
        ({"llama.attention.layer_norm_rms_epsilon": -1.0}, "layer_norm_rms_epsilon is -1"),
        ({"llama.rope.freq_base": 0.0}, "llama.rope.freq_base is 0"),
        ({"llama.rope.scaling.type": "other"}, "expected none, linear, yarn or longrope"),
        ({"llama.expert_count": 5000}, "llama.expert_count is 5000"),
        ({"llama.expert_count": 4}, "llama.expert_used_count is 0"),
        ({"llama.expert_used_count": 2}, "llama.expert_used_count is 2"),
        ({"tokenizer.ggml.model": "other"}, "unknown tokenizer: 'other'"),
        ({"tokenizer.ggml.pre": "other"}, "unknown pre-tokenizer type: 'other'"),
        ({"tokenizer.ggml.tokens": None}, "has no vocabulary"),
        ({"tokenizer.ggml.tokens": [1, 2]}, "has no vocabulary"),
        ({"tokenizer.ggml.tokens": TOKENS[:-1]}, f"token_type has {N_VOCAB} values for {N_VOCAB - 1} tokens"),
        ({"tokenizer.ggml.merges": None}, "cannot find tokenizer merges"),
        ({"tokenizer.ggml.token_type": [1] * 5}, f"token_type has 5 values for {N_VOCAB} tokens"),
        ({"tokenizer.ggml.tokens": [*TOKENS[:-1], TOKENS[0]]}, f"tokens 0 and {N_VOCAB - 1} of its vocabulary are"),
        ({"tokenizer.ggml.tokens": [*TOKENS[:-1], TOKENS[0] + "\0x"]}, f"tokens 0 and {N_VOCAB - 1} of its vocabulary"),
    ],
)
def test_senseless_metadata(tmp_path: Path, metadata: dict[str, Any], expected: str) -> None:
    assert expected in refusal(make_model(tmp_path / "model.gguf", n_layer=1, metadata=metadata))


def test_vocabulary_of_another_size(tmp_path: Path) -> None:
    changes = {"tokenizer.ggml.tokens": TOKENS[:-1], "tokenizer.ggml.token_type": [1] * (N_VOCAB - 1)}
    message = refusal(make_model(tmp_path / "model.gguf", n_layer=1, metadata=changes))
    assert f"vocabulary of {N_VOCAB - 1} tokens, but an embedding of {N_VOCAB} rows" in message


def test_names_cannot_forge_lines(tmp_path: Path) -> None:
    message = refusal(make_model(tmp_path / "m.gguf", metadata={"general.architecture": "x\n\x1b[31my\u2028z\x9b"}))
    assert r"x\x0a\x1b[31my\xe2\x80\xa8z\xc2\x9b" in message


# ---- models in several parts -----------------------------------------------------------------------------------------


def split(model: Path, folder: Path) -> list[Path]:
    """Write a model as two files, as llama.cpp splits it."""
    reader = gguf.GGUFReader(model)
    half = len(reader.tensors) // 2
    paths = [folder / f"big-0000{i + 1}-of-00002.gguf" for i in range(2)]
    for i, tensors in enumerate((reader.tensors[:half], reader.tensors[half:])):
        writer = gguf.GGUFWriter(None, "llama")
        if i == 0:
            for name, field in reader.fields.items():
                if not name.startswith("GGUF.") and name != "general.architecture":
                    kind = field.types[0]
                    sub_type = field.types[-1] if kind == KINDS.ARRAY else None
                    writer.add_key_value(name, field.contents(), kind, sub_type)
        writer.add_uint16("split.no", i)
        writer.add_uint16("split.count", 2)
        writer.add_int32("split.tensors.count", len(reader.tensors))
        for part in tensors:
            writer.add_tensor(part.name, part.data, raw_dtype=part.tensor_type)
        writer.write_header_to_file(paths[i])
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return paths


def test_split_model(model: Path, tmp_path: Path) -> None:
    first, second = split(model, tmp_path)
    whole = Model(str(model))
    parts = Model(str(first))
    assert (parts.n_params, parts.size_bytes) == (whole.n_params, whole.size_bytes)
    assert f"give the first part, {first}" in refusal(second)
    renamed = tmp_path / "other.gguf"
    renamed.write_bytes(first.read_bytes())
    assert "its name must end in -00001-of-00002.gguf" in refusal(renamed)
    second.write_bytes(second.read_bytes()[:-100])
    with pytest.raises(ModelFileError, match=r"00002-of-00002\.gguf: .*the download is unfinished"):
        Model(str(first))
    second.unlink()
    with pytest.raises(ModelFileError, match=r"00002-of-00002\.gguf: does not exist"):
        Model(str(first))


# ---- and anything else -----------------------------------------------------------------------------------------------


def test_damaged_files_never_kill_the_process() -> None:
    outcomes = dict(run(0, 400))
    assert [line for line in outcomes.values() if line.startswith("died")] == []
    assert len(outcomes) == 400
    assert any(line.startswith("loaded") for line in outcomes.values())
