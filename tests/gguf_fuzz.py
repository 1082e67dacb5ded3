"""Damaged model files, made from the tiny ones of ``shapes.py``: whatever a file holds, loading it must not kill.

    python tests/gguf_fuzz.py --seeds 0:5000        report every seed whose file kills the child process that loads it

Each seed gives one file. A child process loads a batch of them; when it dies, the seed at work is the culprit.
"""

from __future__ import annotations

import argparse
import random
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
from shapes import ARCHITECTURES, make_model

KINDS = gguf.GGUFValueType
NUMBERS = (0, 1, 2, 3, 5, 7, 8, 31, 33, 127, 255, 256, 1000, 4096, 65535, 2**20, 2**31 - 1, 2**31, 2**32 - 1)
WIDE = (*NUMBERS, 2**32, 2**48, 2**63 - 1, 2**63, 2**64 - 1, 2**64 - 32)
REALS = (0.0, -1.0, 1.0, 1e-30, 1e30, float("inf"), float("nan"), 3.5)
TEXTS = (
    "",
    "x",
    "llama",
    "gpt2",
    "none",
    "no_vocab",
    "bert",
    "t5",
    "rwkv",
    "mamba",
    "yarn",
    "longrope",
    "a\0b",
    "é" * 300,
)


def base_models(folder: Path) -> dict[str, bytes]:
    """One small file per shape, and one with an SPM vocabulary."""
    files = {}
    for arch in ARCHITECTURES:
        files[arch] = make_model(folder / f"{arch}.gguf", arch, n_embd=32, n_layer=2, n_head=2, n_head_kv=1, n_ctx=64)
    files["quantized"] = make_model(folder / "quantized.gguf", "llama", outtype="q4_0", n_embd=32, n_layer=1, n_head=2)
    files["spm"] = make_model(folder / "spm.gguf", "llama", n_embd=32, n_layer=1, n_head=2, n_head_kv=1, vocab="spm")
    return {name: path.read_bytes() for name, path in files.items()}


def head_size(data: bytes) -> int:
    """Where the tensor data of an undamaged file start."""
    marker = data.find(b"blk.0.")
    return min(len(data), marker + 4096)


def damage_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, overwrite, cut or insert bytes in the head."""
    out = bytearray(data)
    end = head_size(data)
    tensors = data.find(b"token_embd.weight") - 8
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        area = rng.choice(((0, 24), (24, 1200), (24, end), (max(0, tensors), end), (max(0, tensors - 600), end)))
        at = rng.randrange(area[0], max(area[0] + 1, min(area[1], len(out) - 8)))
        action = rng.randrange(6)
        if action == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif action == 1:
            out[at] = rng.choice((0, 1, 2, 4, 9, 12, 13, 127, 128, 255))
        elif action == 2:
            out[at : at + 4] = struct.pack("<I", rng.choice(NUMBERS))
        elif action == 3:
            out[at : at + 8] = struct.pack("<Q", rng.choice(WIDE))
        elif action == 4:
            del out[at : at + rng.choice((1, 4, 8, 32))]
        else:
            out[at:at] = rng.randbytes(rng.choice((1, 4, 8, 32)))
    if rng.random() < 0.1:
        del out[rng.randrange(len(out)) :]
    return bytes(out)


def _random_value(rng: random.Random) -> Any:
    kind = rng.randrange(8)
    if kind < 3:
        return (KINDS.UINT32, rng.choice(NUMBERS))
    if kind == 3:
        return (KINDS.INT32, rng.choice((-1, 0, -(2**31), 7)))
    if kind == 4:
        return (KINDS.FLOAT32, rng.choice(REALS))
    if kind == 5:
        return rng.choice(TEXTS)
    if kind == 6:
        return [rng.choice((0, 1, 2, 3, 2**31 - 1)) for _ in range(rng.choice((1, 2, 3, 300)))]
    return rng.random() < 0.5


def _same_type(value: Any, kind: gguf.GGUFValueType, rng: random.Random) -> Any:
    """Another value of the type that the key has: what passes libllama's own type checks."""
    if kind in (KINDS.UINT32, KINDS.INT32):
        near = [value + delta for delta in (-1, 1, 3)] + [value * 2, value // 2]
        return (kind, rng.choice([number for number in (*near, *NUMBERS) if 0 <= number < 2**31]))
    if kind == KINDS.FLOAT32:
        return (kind, rng.choice(REALS))
    if kind == KINDS.STRING:
        return rng.choice(TEXTS)
    if kind == KINDS.ARRAY:
        changed = list(value)
        at = rng.randrange(len(changed))
        action = rng.randrange(4)
        if action == 0:
            del changed[max(1, at) :]
        elif action == 1:
            changed[at] = changed[rng.randrange(len(changed))]
        elif action == 2 and isinstance(changed[0], str):
            changed[at] = rng.choice(TEXTS)
        elif action == 2:
            changed[at] = type(changed[0])(rng.choice((-1, 0, 1, 3, 6, 99)))
        else:
            changed.append(changed[at])
        return changed
    return not value


#: keys that no tiny model has, but that libllama reads
EXTRA_KEYS = [
    "attention.key_length",
    "attention.value_length",
    "attention.sliding_window",
    "attention.head_count_kv",
    "rope.dimension_count",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "expert_count",
    "expert_used_count",
    "expert_group_count",
    "nextn_predict_layers",
    "vocab_size",
    "attention.causal",
    "pooling_type",
    "leading_dense_block_count",
    "embedding_length_out",
    "attention.clamp_kqv",
    "attention.max_alibi_bias",
    "attention.scale",
    "embedding_scale",
    "logit_scale",
    "final_logit_softcapping",
    "attention.sliding_window_pattern",
    "attention.key_length_swa",
    "rope.dimension_sections",
]
EXTRA_TOKENIZER_KEYS = [
    "pre",
    "scores",
    "add_bos_token",
    "add_space_prefix",
    "padding_token_id",
    "unknown_token_id",
    "eot_token_id",
    "suppress_tokens",
    "precompiled_charsmap",
    "token_type_count",
    "remove_extra_whitespaces",
]


def damage_metadata(name: str, folder: Path, rng: random.Random) -> bytes:
    """A well-formed file whose metadata make no sense."""
    arch = name if name in ARCHITECTURES else "llama"
    vocab = "spm" if name == "spm" else "bpe"

    def change(entries: dict[str, Any]) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            action = rng.randrange(8)
            key = rng.choice(list(entries))
            if action == 0:
                changes[f"{arch}.{rng.choice(EXTRA_KEYS)}"] = _random_value(rng)
            elif action == 1:
                changes[f"tokenizer.ggml.{rng.choice(EXTRA_TOKENIZER_KEYS)}"] = _random_value(rng)
            elif action == 2:
                changes[key] = _random_value(rng)
            elif action == 3:
                changes[key] = None
            else:
                changes[key] = _same_type(entries[key].value, entries[key].type, rng)
        return changes

    path = folder / "metadata.gguf"
    make_model(path, arch, vocab=vocab, n_embd=32, n_layer=1, n_head=2, n_head_kv=1, n_ctx=64, metadata=change)
    return path.read_bytes()


def damaged(seed: int, bases: dict[str, bytes], folder: Path) -> bytes:
    """The file of a seed."""
    rng = random.Random(seed)
    name = rng.choice(list(bases))
    return damage_bytes(bases[name], rng) if rng.random() < 0.5 else damage_metadata(name, folder, rng)


# ---- the child: loads the files of its seeds -------------------------------------------------------------------------


def load(path: Path) -> str:
    """Load a file as far as it goes, and use what loads; returns what happened."""
    from rim_edge import _native
    from rim_edge.errors import RimError

    try:
        dict(_native.GgufFile(str(path)).metadata)
        model = _native.Model(str(path))
    except RimError as error:
        return f"{type(error).__name__}: {error}"
    try:
        tokens = model.tokenize("Tom has 12 apples, and\n how many?\0", parse_special=True)
        model.detokenize(list(range(model.n_vocab)))
        n = model.n_vocab
        layout = {"begin_id": n - 1, "memory_id": n - 2, "end_id": n - 3, "size": 2, "count": 2, "prefix": []}
        blocks = _native.Blocks(**layout) if model.coupled else None
        session = _native.Session(model, blocks, _native.SessionOptions(n_ctx=64, n_threads=1))
        session.think([tokens[:8] or [0]], 2 if blocks else 0)
        session.decode([(0, 2 if blocks else 0)], _native.Sampling(), 2)
    except RimError as error:
        return f"loaded, then {type(error).__name__}: {error}"
    return "loaded"


def child(first: int, last: int) -> None:
    """Load every seed's file; prints the seed before and the outcome after."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bases = base_models(folder)
        path = folder / "damaged.gguf"
        for seed in range(first, last):
            path.write_bytes(damaged(seed, bases, folder))
            print(f"{seed} ", end="", flush=True)
            print(load(path).replace(str(folder), ""), flush=True)


# ---- the parent ------------------------------------------------------------------------------------------------------


def run(first: int, last: int, timeout_s: float = 300) -> Iterator[tuple[int, str]]:
    """Outcome of every seed; a dead child gives "died: signal" for the seed at work."""
    while first < last:
        command = [sys.executable, __file__, "--child", f"{first}:{last}"]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False)
        lines = done.stdout.split("\n")[:-1]
        for line in lines:
            seed, _, outcome = line.partition(" ")
            if outcome:
                first = int(seed) + 1
                yield int(seed), outcome
        if first < last:
            yield first, f"died: {done.returncode} {done.stderr.strip()[-600:]}"
            first += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0:1000", help="first:last+1")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--show", action="store_true", help="print every outcome")
    arguments = parser.parse_args()
    first, last = (int(number) for number in (arguments.child or arguments.seeds).split(":"))
    if arguments.child:
        child(first, last)
        return 0
    deaths = loaded = 0
    for seed, outcome in run(first, last):
        deaths += outcome.startswith("died")
        loaded += outcome.startswith("loaded")
        if arguments.show or outcome.startswith("died"):
            print(seed, outcome, flush=True)
    print(f"{last - first} files: {loaded} loaded, {deaths} killed the process")
    return 1 if deaths else 0


if __name__ == "__main__":
    sys.exit(main())
