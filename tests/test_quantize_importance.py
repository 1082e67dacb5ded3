"""The importance matrix: against a forward pass of our own, as a file, and in the quantizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest
from gguf_rewrite import rewritten
from shapes import default_spec, make_model

from convert.quantization.calibrate import collect_importance
from convert.quantization.importance import ImportanceMatrix
from convert.quantization.quantizer import quantize_file
from convert.quantization.recipe import Recipe
from rim_edge import _native
from rim_edge.errors import CancelledError, ModelFileError, OptionError, UnsupportedError

Array = npt.NDArray[np.float64]

PROBLEMS = [
    {"question": "Tom has 2 apples and 1 more. How many?", "answer": "3"},
    {"question": "How many apples has the man?", "answer": "12 apples"},
]
SPEC = default_spec()
N_SLOTS = SPEC.block_count * SPEC.block_width


def sequence(problem: dict[str, str], model: _native.Model, blocks: int) -> tuple[list[int], list[bool]]:
    """Tokens, and which are slots, of one calibration sequence, made by hand."""
    prompt = model.tokenize(f"Question: {problem['question']}\nAnswer:")
    answer = [*model.tokenize(problem["answer"]), model.eos_id]
    slots = list(SPEC.block_tokens) * blocks
    return prompt + slots + answer, [False] * len(prompt) + [True] * len(slots) + [False] * len(answer)


def weights_of(path: Path) -> dict[str, Array]:
    return {t.name: np.array(t.data, np.float64) for t in gguf.GGUFReader(path).tensors}


def rms(x: Array, weight: Array) -> Array:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weight


def rotated(x: Array) -> Array:
    """Rotary embedding of ``[tokens, heads, width]``, neighbours in pairs, base 10000."""
    width = x.shape[-1]
    angle = np.arange(len(x))[:, None] * 10000.0 ** (-np.arange(0, width, 2) / width)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    even, odd = x[..., ::2], x[..., 1::2]
    return np.stack([even * cos - odd * sin, even * sin + odd * cos], -1).reshape(x.shape)


def inputs_of_matrices(w: dict[str, Array], tokens: list[int], n_head: int = 4, n_head_kv: int = 2) -> dict[str, Array]:
    """What each matrix of a two-layer llama is multiplied with, ``[tokens, columns]``."""
    found: dict[str, Array] = {}
    x = w["token_embd.weight"][tokens]
    n, width = len(tokens), x.shape[1] // n_head

    def product(name: str, of: Array) -> Array:
        found[name] = of
        return of @ w[name].T

    for layer in range(2):
        at = f"blk.{layer}."
        h = rms(x, w[at + "attn_norm.weight"])
        q = rotated(product(at + "attn_q.weight", h).reshape(n, n_head, width))
        k = rotated(product(at + "attn_k.weight", h).reshape(n, n_head_kv, width))
        v = product(at + "attn_v.weight", h).reshape(n, n_head_kv, width)
        k, v = (np.repeat(part, n_head // n_head_kv, axis=1) for part in (k, v))
        scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(width)
        scores = np.where(np.tril(np.ones((n, n), bool)), scores, -np.inf)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        x = x + product(at + "attn_output.weight", np.einsum("hij,jhd->ihd", p, v).reshape(n, -1))
        h = rms(x, w[at + "ffn_norm.weight"])
        if at + "ffn_gate_inp.weight" in w:  # what the experts get; nothing after them is needed
            product(at + "ffn_gate_inp.weight", h)
            return found
        gate, up = product(at + "ffn_gate.weight", h), product(at + "ffn_up.weight", h)
        x = x + product(at + "ffn_down.weight", gate / (1 + np.exp(-gate)) * up)
    product("output.weight", rms(x, w["output_norm.weight"]))
    return found


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("importance") / "tiny.gguf")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose rows take K-quants."""
    return make_model(tmp_path_factory.mktemp("importance") / "wide.gguf", n_embd=256)


@pytest.mark.parametrize("blocks, slot_weight", [(None, 1.0), (0, 1.0), (None, 3.5), (2, 0.0)])
def test_sums_are_those_of_a_forward_pass(path: Path, blocks: int | None, slot_weight: float) -> None:
    matrix = collect_importance(path, PROBLEMS, blocks=blocks, slot_weight=slot_weight, n_threads=1, output=True)
    model = _native.Model(str(path))
    w = weights_of(path)
    sums: dict[str, Any] = {}
    count = 0.0
    for problem in PROBLEMS:
        tokens, slots = sequence(problem, model, SPEC.block_count if blocks is None else blocks)
        weight = np.where(slots, slot_weight, 1.0)
        count += weight.sum()
        for name, x in inputs_of_matrices(w, tokens).items():
            sums[name] = sums.get(name, 0) + (weight[:, None] * x * x).sum(0)
    assert matrix.in_sum2.keys() == sums.keys()
    for name, expected in sums.items():
        np.testing.assert_allclose(matrix.in_sum2[name][0], expected, rtol=2e-4, err_msg=name)
        assert matrix.counts[name] == pytest.approx([count])
    assert matrix.chunk_count == len(PROBLEMS)


def test_experts_are_summed_apart(path: Path, tmp_path: Path) -> None:
    """Each activation counts for the experts that its token goes to, and the quantizer takes the sums apart again."""
    rng = np.random.default_rng(3)
    shapes = {"gate_inp": (4, 64), "gate_exps": (4, 128, 64), "up_exps": (4, 128, 64), "down_exps": (4, 64, 128)}
    made: dict[str, Any] = {}
    for layer in range(2):
        made |= {f"blk.{layer}.ffn_{part}.weight": None for part in ("gate", "up", "down")}
        for part, shape in shapes.items():
            made[f"blk.{layer}.ffn_{part}.weight"] = rng.normal(0, 0.2, shape).astype(np.float32)
    moe = rewritten(
        path,
        tmp_path / "moe.gguf",
        tensors=made,
        metadata={"llama.expert_count": 4, "llama.expert_used_count": 2, "llama.expert_feed_forward_length": 128},
    )
    matrix = collect_importance(moe, PROBLEMS, slot_weight=2.0, n_threads=1)
    sums, counts = np.zeros((4, 64)), np.zeros(4)
    inner = np.zeros((4, 128))
    w = weights_of(moe)
    for problem in PROBLEMS:
        tokens, slots = sequence(problem, _native.Model(str(moe)), SPEC.block_count)
        found = inputs_of_matrices(w, tokens)
        h = found["blk.0.ffn_gate_inp.weight"]
        chosen = np.argsort(-(h @ w["blk.0.ffn_gate_inp.weight"].T), axis=1)[:, :2]
        for x, slot, experts in zip(h, slots, chosen, strict=True):
            for expert in experts:
                weight = 2.0 if slot else 1.0
                sums[expert] += weight * x * x
                counts[expert] += weight
                gate, up = (w[f"blk.0.ffn_{part}_exps.weight"][expert] @ x for part in ("gate", "up"))
                inner[expert] += weight * (gate / (1 + np.exp(-gate)) * up) ** 2
    for part, expected in (("gate", sums), ("up", sums), ("down", inner)):
        name = f"blk.0.ffn_{part}_exps.weight"
        np.testing.assert_allclose(matrix.counts[name], counts, rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(matrix.in_sum2[name], expected, rtol=1e-3, err_msg=name)
    result = quantize_file(moe, tmp_path / "small.gguf", Recipe("q4_0"), matrix)
    assert _native.GgufFile(str(result.path)).metadata["quantize.imatrix.entries_count"] == len(matrix.in_sum2)


def test_a_sequence_longer_than_one_slice_is_summed_whole(path: Path) -> None:
    long = [{"question": "the apples " * 500, "answer": "3"}]
    matrix = collect_importance(path, long, blocks=0, n_threads=1)
    tokens, _ = sequence(long[0], _native.Model(str(path)), 0)
    assert len(tokens) > 512
    w = weights_of(path)
    first = rms(w["token_embd.weight"][tokens], w["blk.0.attn_norm.weight"])
    np.testing.assert_allclose(matrix.in_sum2["blk.0.attn_q.weight"][0], (first * first).sum(0), rtol=1e-4)
    assert matrix.counts["blk.1.ffn_down.weight"] == [len(tokens)]


def test_the_same_problems_give_the_same_file(path: Path, tmp_path: Path) -> None:
    files = []
    for name in ("a.gguf", "b.gguf"):
        collect_importance(path, PROBLEMS, n_threads=1).save(tmp_path / name)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]


def test_file_is_in_the_form_of_llama_cpp(path: Path, tmp_path: Path) -> None:
    matrix = collect_importance(path, PROBLEMS, n_threads=1, dataset="apples.jsonl")
    matrix.save(tmp_path / "imatrix.gguf")
    reader = gguf.GGUFReader(tmp_path / "imatrix.gguf")
    values = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert values == {
        "general.type": "imatrix",
        "imatrix.datasets": ["apples.jsonl"],
        "imatrix.chunk_count": 2,
        "imatrix.chunk_size": matrix.chunk_size,
    }
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    sums, counts = tensors["blk.1.ffn_down.weight.in_sum2"], tensors["blk.1.ffn_down.weight.counts"]
    assert list(sums.shape) == [128, 1] and list(counts.shape) == [1, 1]  # the row's length first
    assert len(tensors) == 2 * 14
    np.testing.assert_array_equal(sums.data, matrix.in_sum2["blk.1.ffn_down.weight"])


def write_imatrix(path: Path, tensors: dict[str, npt.NDArray[np.float32]], kind: str = "imatrix") -> Path:
    """A file as llama-imatrix writes it."""
    writer = gguf.GGUFWriter(None, "imatrix")
    writer.kv_data[0].clear()
    writer.add_type(kind)
    writer.add_array("imatrix.datasets", ["wiki.txt", "more.txt"])
    writer.add_uint32("imatrix.chunk_count", 7)
    writer.add_uint32("imatrix.chunk_size", 512)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def ones(*shape: int) -> npt.NDArray[np.float32]:
    return np.ones(shape, np.float32)


def test_a_file_of_llama_cpp_is_read(tmp_path: Path) -> None:
    sums = np.arange(12, dtype=np.float32).reshape(3, 4)
    counts = np.array([[2], [0], [4]], np.float32)
    name = "blk.0.ffn_up_exps.weight"
    file = write_imatrix(tmp_path / "theirs.gguf", {f"{name}.in_sum2": sums, f"{name}.counts": counts})
    matrix = ImportanceMatrix.load(file)
    assert (matrix.chunk_count, matrix.chunk_size, matrix.datasets) == (7, 512, ("wiki.txt", "more.txt"))
    np.testing.assert_array_equal(matrix.in_sum2[name], sums)
    np.testing.assert_array_equal(matrix.counts[name], [2, 0, 4])
    # an expert that nothing reached weighs its columns alike
    np.testing.assert_array_equal(matrix.means()[name], [0, 0.5, 1, 1.5, 1, 1, 1, 1, 2, 2.25, 2.5, 2.75])


def test_a_file_without_facts_is_read(tmp_path: Path) -> None:
    values = {"blk.0.ffn_up.weight.in_sum2": ones(1, 4), "blk.0.ffn_up.weight.counts": ones(1, 1)}
    theirs = write_imatrix(tmp_path / "theirs.gguf", values)
    data = theirs.read_bytes().replace(b"imatrix.datasets", b"imatrix.datasetz")
    theirs.write_bytes(data)
    matrix = ImportanceMatrix.load(theirs)
    assert matrix.datasets == () and matrix.in_sum2.keys() == {"blk.0.ffn_up.weight"}
    matrix.save(tmp_path / "ours.gguf")
    assert ImportanceMatrix.load(tmp_path / "ours.gguf").datasets == ("unknown",)


def test_a_saved_matrix_is_read_back(path: Path, tmp_path: Path) -> None:
    matrix = collect_importance(path, PROBLEMS, n_threads=1)
    matrix.save(tmp_path / "a.gguf")
    again = ImportanceMatrix.load(tmp_path / "a.gguf")
    assert again.sha256 == matrix.sha256 and again.datasets == matrix.datasets
    assert sorted(again.in_sum2) == sorted(matrix.in_sum2)


@pytest.mark.parametrize(
    "tensors, kind, message",
    [
        ({"a.in_sum2": ones(1, 4)}, "imatrix", "do not belong together"),
        ({"a.in_sum2": ones(1, 4), "a.counts": -ones(1, 1)}, "imatrix", "no sums of squares"),
        ({"a.in_sum2": ones(1, 4) * np.float32(np.nan), "a.counts": ones(1, 1)}, "imatrix", "no sums of squares"),
        ({"a.in_sum2": ones(3, 4), "a.counts": ones(2, 1)}, "imatrix", "no sums of squares"),
        ({"a.in_sum2": ones(1, 4), "a.counts": ones(1, 1)}, "model", "no importance matrix"),
    ],
)
def test_damaged_files_are_refused(
    tmp_path: Path, tensors: dict[str, npt.NDArray[np.float32]], kind: str, message: str
) -> None:
    with pytest.raises(ModelFileError, match=message):
        ImportanceMatrix.load(write_imatrix(tmp_path / "bad.gguf", tensors, kind))


def test_the_old_form_is_named(tmp_path: Path) -> None:
    (tmp_path / "old.dat").write_bytes(b"\1\0\0\0" * 20)
    with pytest.raises(ModelFileError, match=r"old .dat form"):
        ImportanceMatrix.load(tmp_path / "old.dat")


def test_quantizing_with_a_matrix_keeps_what_matters(wide: Path, tmp_path: Path) -> None:
    """Columns that are much used lose less than without the matrix."""
    matrix = collect_importance(wide, PROBLEMS, n_threads=1)
    recipe = Recipe("q2_k", importance=matrix.sha256)
    with_matrix = quantize_file(wide, tmp_path / "with.gguf", recipe, matrix, n_threads=1)
    without = quantize_file(wide, tmp_path / "without.gguf", Recipe("q2_k"), n_threads=1)
    assert with_matrix.sha256 != without.sha256
    original = weights_of(wide)
    means = matrix.means()

    def loss(path: Path) -> float:
        total = 0.0
        for tensor in gguf.GGUFReader(path).tensors:
            if tensor.name in means:
                error = gguf.quants.dequantize(tensor.data, tensor.tensor_type) - original[tensor.name]
                total += float((error**2 * means[tensor.name]).sum())
        return total

    assert loss(with_matrix.path) < 0.9 * loss(without.path)
    metadata = _native.GgufFile(str(with_matrix.path)).metadata
    assert metadata["quantize.imatrix.chunks_count"] == 2 and metadata["quantize.imatrix.entries_count"] == 14
    assert metadata["quantize.imatrix.sha256"] == matrix.sha256
    again = quantize_file(wide, tmp_path / "again.gguf", recipe, matrix, n_threads=3)
    assert again.sha256 == with_matrix.sha256


def test_a_type_that_needs_a_matrix_gets_one(wide: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"cannot be iq2_xxs without an importance matrix"):
        quantize_file(wide, tmp_path / "a.gguf", Recipe("iq2_xxs"))
    made = quantize_file(wide, tmp_path / "a.gguf", Recipe("iq2_xxs"), collect_importance(wide, PROBLEMS, n_threads=1))
    assert "iq2_xxs" in made.tensor_types


def test_a_matrix_of_another_model_is_refused(path: Path, wide: Path, tmp_path: Path) -> None:
    matrix = collect_importance(path, PROBLEMS, n_threads=1)
    with pytest.raises(OptionError, match=r"belongs to another model: .* has 256 columns .* and 64 in the matrix"):
        quantize_file(wide, tmp_path / "a.gguf", Recipe("q4_k_m"), matrix)
    gpt2 = make_model(tmp_path / "gpt2.gguf", "gpt2", n_embd=64)
    with pytest.raises(OptionError, match=r"belongs to another model: .* has no tensor"):
        quantize_file(gpt2, tmp_path / "a.gguf", Recipe("q4_0"), matrix)
    with pytest.raises(OptionError, match="names another importance matrix"):
        quantize_file(path, tmp_path / "a.gguf", Recipe("q4_0", importance="0" * 64), matrix)
    with pytest.raises(OptionError, match="give that matrix too"):
        quantize_file(path, tmp_path / "a.gguf", Recipe("q4_0", importance="0" * 64))
    assert not (tmp_path / "a.gguf").exists()


@pytest.mark.parametrize(
    "problems, options, message",
    [
        ([], {}, "no problems"),
        ([{"question": "How many?"}], {}, "problem 1 has no texts"),
        ([PROBLEMS[0], {"question": "How many?", "answer": " "}], {}, "problem 2 has no texts"),
        ([{"question": "the " * 5000, "answer": "1"}], {}, "room for 2048"),
        (PROBLEMS, {"blocks": 9}, "at most 8 memory blocks"),
        (PROBLEMS, {"blocks": -1}, "0 or more"),
        (PROBLEMS, {"slot_weight": -1.0}, "0 or more"),
        (PROBLEMS, {"slot_weight": float("nan")}, "0 or more"),
    ],
)
def test_what_cannot_be_calibrated_on(path: Path, problems: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        collect_importance(path, problems, n_threads=1, **options)


def test_a_plain_model_is_calibrated_on_text(tmp_path: Path) -> None:
    plain = make_model(tmp_path / "plain.gguf", spec=None)
    assert collect_importance(plain, PROBLEMS, n_threads=1).in_sum2
    with pytest.raises(UnsupportedError, match="no memory blocks"):
        collect_importance(plain, PROBLEMS, blocks=2)


@pytest.mark.parametrize("arch", ["gpt2", "gemma3", "qwen3", "mamba"])
def test_every_matrix_of_other_architectures_is_seen(arch: str, tmp_path: Path) -> None:
    path = make_model(tmp_path / "other.gguf", arch, spec=None)
    matrix = collect_importance(path, PROBLEMS, n_threads=1)
    small = ("ssm_conv1d", "ssm_a")  # no products with a matrix
    matrices = {t.name for t in _native.GgufFile(str(path)).tensors if len(t.shape) > 1 and t.name.startswith("blk.")}
    assert matrix.in_sum2.keys() == {name for name in matrices if not any(part in name for part in small)}


def test_calibrating_can_be_stopped(path: Path) -> None:
    with pytest.raises(CancelledError):
        collect_importance(path, PROBLEMS, n_threads=1, progress=lambda done, total: done == 0)
