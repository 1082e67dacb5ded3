"""Convert a Hugging Face folder to an ONNX folder, memory-slot metadata included.

    python convert/to_onnx.py DIR -o model-onnx --precision int4
    python convert/to_onnx.py BASE --adapter LORA -o model-onnx
    python convert/to_onnx.py PLAIN --blocks 8 --block-size 2 -o model-onnx

The same shape as ``to_gguf.py``: read the folder, merge or extend it, build the graph (``onnx_builder.py``, in a child
process), edit it (``onnx_graph.py``), and let the folder appear whole or not at all.
"""

from __future__ import annotations

import json
import shutil
import sys
from math import prod
from pathlib import Path

if __name__ == "__main__" and not __package__:  # run as a file: convert/ is this checkout's, rim_edge the installed one
    sys.path[:] = [*sys.path[1:], str(Path(__file__).resolve().parents[1])]
    __package__ = "convert"

from rim_edge.errors import OptionError

from .checkpoint import Checkpoint
from .command import conversion_parser, run_conversion
from .onnx_builder import PRECISIONS, build, check_builder
from .onnx_graph import finish_graph
from .onnx_source import Progress, check_buildable, write_source, write_tokenizer
from .source import check_blocks, read_source
from .vocabulary import special_vocabulary
from .whole_folder import check_output_folder, whole_folder


def convert(
    folder: Path,
    output: Path,
    precision: str = "fp32",
    force: bool = False,
    *,
    adapter: Path | None = None,
    blocks: int | None = None,
    block_size: int | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Write the model in ``folder`` as the ONNX folder ``output``; returns what a user should be told.

    Args:
        precision: ``fp32``, ``int8`` or ``int4``, of the matrices; the cache and all else is F32.
        force: replace ``output``, if it is an ONNX folder.
        adapter: folder of a PEFT LoRA adapter that is merged into the model.
        blocks, block_size: K and M of memory blocks for a model that has none; their tokens are untrained.
            ``block_size`` defaults to 2.
        progress: called with bytes done and bytes in all while the tensors are read; building the graph comes after
            that.

    Raises:
        OptionError: options that make no sense. ConvertError, SpecError: a folder that cannot be converted, or an
            output that exists.
        OSError: a file that cannot be read or written.
    """
    if precision not in PRECISIONS:
        raise OptionError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    check_blocks(blocks, block_size)
    check_output_folder(output, force)
    checkpoint = read_source(folder, adapter, blocks, block_size)
    check_buildable(checkpoint)
    if checkpoint.spec is not None:
        checkpoint.spec.check_model(checkpoint.n_vocab, checkpoint.family.width(checkpoint.config))
    check_builder()
    with whole_folder(output, force) as place:
        source, made = place / "source", place / "made"
        source.mkdir()
        ends = write_source(checkpoint, source, progress)
        build(source, made, precision)
        _finish(checkpoint, made, precision, ends)
        shutil.rmtree(source)
        for file in made.iterdir():
            file.rename(place / file.name)
        made.rmdir()
    return list(checkpoint.notices)


def _finish(checkpoint: Checkpoint, folder: Path, precision: str, ends: list[int]) -> None:
    """Put our own metadata, tokenizer and special tokens into the builder's folder."""
    config_file = folder / "genai_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    model = config["model"]
    metadata = {
        "general.architecture": checkpoint.family.architecture,
        "general.name": checkpoint.name,
        "general.parameter_count": str(sum(prod(tensor.shape) for tensor in checkpoint.tensors.values())),
        "general.precision": precision,
        **({"general.license": checkpoint.license} if checkpoint.license else {}),
        **(checkpoint.spec.to_props() if checkpoint.spec else {}),
    }
    finish_graph(folder / "model.onnx", metadata, model["decoder"]["head_size"])
    bos = special_vocabulary(checkpoint, with_merges=False).special_token_ids.get("bos")
    model["eos_token_id"] = ends
    model.pop("bos_token_id", None)
    if bos is not None:
        model["bos_token_id"] = bos
    config_file.write_text(json.dumps(config, indent=4) + "\n", encoding="utf-8")
    keep = {"genai_config.json", "model.onnx", "model.onnx.data"}
    for file in folder.iterdir():
        if file.name not in keep:
            file.unlink()
    write_tokenizer(checkpoint, folder)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = conversion_parser(
        "to_onnx",
        "an ONNX folder",
        "python convert/to_onnx.py runs/rim-tiny/hf -o rim-tiny-onnx --precision int4",
        "DIR",
        ("--precision", list(PRECISIONS), "fp32"),
    )
    return run_conversion("to_onnx", convert, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
