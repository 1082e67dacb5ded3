"""Peak memory of ``convert/to_gguf.py`` on a checkpoint of the shape of Llama-3.2-1B.

    python bench/convert_memory.py [--outtype bf16]

The checkpoint is a sparse file of zeros and takes no room on the disk; the output does (2.5 GB as BF16), for a moment.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from math import prod
from pathlib import Path
from typing import Any

from rim_edge.convert.families import family_of
from rim_edge.convert.to_gguf import convert

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}


def write_checkpoint(folder: Path) -> dict[str, tuple[int, ...]]:
    """Write the folder; returns the shapes of its tensors."""
    family = family_of(CONFIG)
    shapes = {**family.shapes(CONFIG), family.embedding: (CONFIG["vocab_size"], CONFIG["hidden_size"])}
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    raw = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(len(raw).to_bytes(8, "little") + raw)
        stream.truncate(8 + len(raw) + end)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    vocabulary = {f"token{index}": index for index in range(CONFIG["vocab_size"] - 256)}
    merges = [["t", f"oken{index}"] for index in range(len(vocabulary))]
    digits = {"type": "Digits", "individual_digits": True}
    level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    tokenizer = {
        "added_tokens": [],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, level]},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return shapes


def peak_mib() -> float:
    """Peak resident memory of this process so far, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def main() -> None:
    parser = argparse.ArgumentParser(description="Peak memory of a conversion to GGUF.")
    parser.add_argument("--outtype", default="bf16", choices=["f32", "f16", "bf16", "q8_0"])
    outtype = parser.parse_args().outtype
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        shapes = write_checkpoint(folder)
        imported, before_tensors, start = peak_mib(), 0.0, time.monotonic()

        def progress(done: int, total: int) -> None:
            nonlocal before_tensors
            before_tensors = before_tensors or peak_mib()

        convert(folder, folder / "model.gguf", outtype, progress=progress)
        n_values = sum(map(prod, shapes.values()))
        size = (folder / "model.gguf").stat().st_size / 1e9
        print(f"{n_values / 1e9:.2f} G parameters to {size:.2f} GB of {outtype} in {time.monotonic() - start:.0f} s")
        print(f"largest tensor as F32: {max(map(prod, shapes.values())) * 4 / (1 << 20):.0f} MiB")
        steps = f"{imported:.0f} imported, {before_tensors:.0f} with the vocabulary, {peak_mib():.0f} at the end"
        print(f"peak memory, MiB: {steps}")


if __name__ == "__main__":
    main()
