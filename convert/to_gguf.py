"""Convert a Hugging Face folder to GGUF, memory-slot metadata included.

    python convert/to_gguf.py DIR -o model.gguf --outtype bf16
    python convert/to_gguf.py BASE --adapter LORA -o model.gguf
    python convert/to_gguf.py PLAIN --blocks 8 --block-size 2 -o model.gguf

One shape: read the folder, merge or extend it, map tensors and names (``families/``), write the file whole or not at
all. A folder without ``rim_config.json`` becomes a plain model. The same folder always gives the same bytes.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

if __name__ == "__main__" and not __package__:  # run as a file: packages are in this checkout, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    __package__ = "convert"


from rim_edge.errors import OptionError, RimError

from .failure import reading
from .gguf_output import OUTPUT_TYPES, Progress, write_gguf
from .progress_bar import progress_bar
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
    parser = argparse.ArgumentParser(
        prog="to_gguf.py",
        description="Convert a Hugging Face folder (with or without memory blocks) to GGUF.",
        epilog="example: python convert/to_gguf.py runs/rim-tiny/hf -o rim-tiny.gguf --outtype bf16",
    )
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="folder with config.json, *.safetensors, tokenizer.json"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="GGUF file to write")
    parser.add_argument(
        "--outtype", choices=sorted(OUTPUT_TYPES), default="bf16", help="type of matrices (default bf16)"
    )
    parser.add_argument("--adapter", type=Path, metavar="DIR", help="PEFT LoRA adapter to merge into the model")
    parser.add_argument("--blocks", type=int, metavar="K", help="give a plain model K untrained memory blocks")
    parser.add_argument(
        "--block-size", type=int, metavar="M", help="memory tokens per block, with --blocks (default 2)"
    )
    parser.add_argument("--force", action="store_true", help="overwrite the output file")
    options = parser.parse_args(arguments)
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with progress_bar(options.output.name) as progress:
            notices = convert(
                options.folder,
                options.output,
                options.outtype,
                options.force,
                adapter=options.adapter,
                blocks=options.blocks,
                block_size=options.block_size,
                progress=progress,
            )
    except KeyboardInterrupt:
        return _fail("interrupted, nothing was written", 130)
    except RimError as error:
        return _fail(str(error), error.exit_code)
    except OSError as error:
        return _fail(f"{error.filename or options.output}: {error.strerror or error}", 1)
    except MemoryError:
        return _fail("not enough memory", 1)
    finally:
        signal.signal(signal.SIGTERM, previous)
    for notice in notices:
        print(f"to_gguf: note: {notice}", file=sys.stderr)
    return 0


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(message: str, code: int) -> int:
    print(f"to_gguf: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
