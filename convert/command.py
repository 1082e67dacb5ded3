"""What the converters' commands share: their arguments, and how a failure becomes one line and an exit code."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from rim_edge.cli.work import interrupt_on_sigterm
from rim_edge.errors import RimError

from .progress_bar import progress_bar


def conversion_parser(
    name: str, target: str, example: str, output: str, choice: tuple[str, list[str], str]
) -> argparse.ArgumentParser:
    """The arguments of a conversion.

    Args:
        name: of the script. target: what it writes, such as ``GGUF``. example: for the help.
        output: placeholder of ``--output``. choice: the option that names the type of the matrices, its values and its
            default.
    """
    parser = argparse.ArgumentParser(
        prog=f"{name}.py",
        description=f"Convert a Hugging Face folder (with or without memory blocks) to {target}.",
        epilog=f"example: {example}",
    )
    option, values, default = choice
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="folder with config.json, *.safetensors, tokenizer.json"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar=output, help=f"{target} to write")
    parser.add_argument(
        option, dest="matrices", choices=values, default=default, help=f"type of matrices (default {default})"
    )
    parser.add_argument("--adapter", type=Path, metavar="DIR", help="PEFT LoRA adapter to merge into the model")
    parser.add_argument("--blocks", type=int, metavar="K", help="give a plain model K untrained memory blocks")
    parser.add_argument(
        "--block-size", type=int, metavar="M", help="memory tokens per block, with --blocks (default 2)"
    )
    parser.add_argument("--force", action="store_true", help="replace the output if it exists")
    return parser


def run_conversion(name: str, convert: Callable[..., list[str]], options: argparse.Namespace) -> int:
    """Run ``convert`` with the parsed options of ``conversion_parser``; returns the exit code."""

    def work() -> list[str]:
        with progress_bar(options.output.name) as progress:
            return convert(
                options.folder,
                options.output,
                options.matrices,
                options.force,
                adapter=options.adapter,
                blocks=options.blocks,
                block_size=options.block_size,
                progress=progress,
            )

    return guarded(name, work, options.output)


def guarded(name: str, work: Callable[[], list[str]], output: Path) -> int:
    """Call ``work``; print its notices, or the one line of its failure, to standard error. Returns the exit code.

    SIGTERM counts as Ctrl-C: exit code 130. An error of the file system that names no file is laid to ``output``.
    """

    def fail(message: str, code: int) -> int:
        print(f"{name}: {' '.join(message.split())}", file=sys.stderr)
        return code

    previous = interrupt_on_sigterm()
    try:
        notices = work()
    except KeyboardInterrupt:
        return fail("interrupted, nothing was written", 130)
    except RimError as error:
        return fail(str(error), error.exit_code)
    except OSError as error:
        return fail(f"{error.filename or output}: {error.strerror or error}", 1)
    except MemoryError:
        return fail("not enough memory", 1)
    finally:
        signal.signal(signal.SIGTERM, previous)
    for notice in notices:
        print(f"{name}: note: {notice}", file=sys.stderr)
    return 0
