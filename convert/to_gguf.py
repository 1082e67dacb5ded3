"""Convert a Hugging Face folder to GGUF, memory-slot metadata included.

    python convert/to_gguf.py DIR -o model.gguf --outtype bf16
    python convert/to_gguf.py BASE --adapter LORA -o model.gguf
    python convert/to_gguf.py PLAIN --blocks 8 --block-size 2 -o model.gguf

One shape: read the folder, merge or extend it, map tensors and names (``families/``), write the file whole or not at
all. A folder without ``rim_config.json`` becomes a plain model. The same folder always gives the same bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # run as a file: convert/ is this checkout's, rim_edge the installed one
    sys.path[:] = [*sys.path[1:], str(Path(__file__).resolve().parents[1])]
    __package__ = "convert"


from rim_edge.errors import OptionError

from .command import conversion_parser, run_conversion
from .failure import reading
from .gguf_output import OUTPUT_TYPES, Progress, write_gguf
from .source import check_blocks, read_source
from .whole_file import check_output


def convert(
    folder: Path,
    output: Path,
    outtype: str = "bf16",
    force: bool = False,
    *,
    adapter: Path | None = None,
    blocks: int | None = None,
    block_size: int | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Write the model in ``folder`` as GGUF to ``output``; returns what a user should be told.

    Args:
        outtype: ``bf16``, ``f16``, ``f32`` or ``q8_0``, the type of the matrices; vectors (norms, biases) are always
            F32.
        force: overwrite ``output``.
        adapter: folder of a PEFT LoRA adapter that is merged into the model.
        blocks, block_size: K and M of memory blocks for a model that has none; their tokens are untrained.
            ``block_size`` defaults to 2.
        progress: called with bytes done and bytes in all.

    Raises:
        OptionError: options that make no sense. ConvertError, SpecError: a folder that cannot be converted, or an
            output that exists.
        OSError: a file that cannot be read or written.
    """
    if outtype not in OUTPUT_TYPES:
        raise OptionError(f"outtype must be one of {', '.join(OUTPUT_TYPES)}, not {outtype!r}")
    check_blocks(blocks, block_size)
    check_output(output, force)
    with reading(folder):
        return write_gguf(read_source(folder, adapter, blocks, block_size), output, outtype, force, progress)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = conversion_parser(
        "to_gguf",
        "GGUF",
        "python convert/to_gguf.py runs/rim-tiny/hf -o rim-tiny.gguf --outtype bf16",
        "FILE",
        ("--outtype", sorted(OUTPUT_TYPES), "bf16"),
    )
    return run_conversion("to_gguf", convert, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
