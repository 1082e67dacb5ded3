"""What both converters begin with: the model's folder, an adapter merged into it, or memory tokens added to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rim_edge.errors import OptionError
from rim_edge.spec import BEGIN_TEXT, MAX_BLOCK_SIZE, MAX_BLOCKS

from .adapted import read_adapted
from .checkpoint import Checkpoint, read_checkpoint
from .memory_tokens import add_memory_tokens


def check_blocks(blocks: int | None, block_size: int | None) -> None:
    """Raise OptionError where the numbers of new memory blocks make no sense."""
    if blocks is None and block_size is not None:
        raise OptionError("--block-size needs --blocks: how many memory blocks shall the model get?")
    if blocks is not None and not 1 <= blocks <= MAX_BLOCKS:
        raise OptionError(f"--blocks must be 1 to {MAX_BLOCKS}, not {blocks}")
    if block_size is not None and not 1 <= block_size <= MAX_BLOCK_SIZE:
        raise OptionError(f"--block-size must be 1 to {MAX_BLOCK_SIZE}, not {block_size}")


def read_source(folder: Path, adapter: Path | None, blocks: int | None, block_size: int | None) -> Checkpoint:
    """The checkpoint to convert; headers of tensors only are read yet.

    Raises ConvertError, SpecError for a folder that cannot be converted.
    """
    checkpoint = read_adapted(folder, adapter) if adapter is not None else read_checkpoint(folder)
    if blocks is not None:
        return add_memory_tokens(checkpoint, blocks, 2 if block_size is None else block_size)
    if checkpoint.spec is None and checkpoint.tokenizer.id_of(BEGIN_TEXT) is not None:
        notice = "the tokenizer has memory tokens, but there is no rim_config.json: a plain model is written"
        return replace(checkpoint, notices=(*checkpoint.notices, notice))
    return checkpoint
