"""``rim-edge convert``: models of Hugging Face become files that the other commands run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from rim_edge.cli import console
from rim_edge.cli.work import interrupt_on_sigterm


@click.group()
def convert() -> None:
    """Turn a Hugging Face folder into a model file, memory blocks included."""


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every target has in common: the folder, an adapter, new memory blocks, the output."""
    for decorate in (
        click.option("--force", is_flag=True, help="Overwrite the output."),
        click.option(
            "--block-size", type=click.IntRange(1, 1024), metavar="M", help="Memory tokens per block, with --blocks."
        ),
        click.option(
            "--blocks", type=click.IntRange(1, 256), metavar="K", help="Give a plain model K untrained memory blocks."
        ),
        click.option("--adapter", type=click.Path(path_type=Path), metavar="DIR", help="PEFT LoRA adapter to merge."),
        click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="What to write."),
        click.argument("folder", metavar="DIR", type=click.Path(path_type=Path)),
    ):
        command = decorate(command)
    return command


@convert.command(
    epilog="""\b
Examples:
  rim-edge convert gguf my-model -o my-model.gguf
  rim-edge convert gguf base --adapter lora -o merged.gguf --outtype q8_0
  rim-edge convert gguf plain --blocks 8 --block-size 2 -o untrained.gguf"""
)
@source_options
@click.option(
    "--outtype",
    type=click.Choice(["f32", "f16", "bf16", "q8_0"]),
    default="bf16",
    show_default=True,
    help="Type of the matrices.",
)
def gguf(folder: Path, output: Path, outtype: str, force: bool, **rest: Any) -> int:
    """Convert DIR, a folder with config.json, *.safetensors and tokenizer.json, to a GGUF file.

    The families gpt2, llama, qwen2, qwen3 and gemma3 (text) are known. The file appears whole or not at all.
    """
    from rim_edge.convert.progress_bar import progress_bar
    from rim_edge.convert.to_gguf import convert as to_gguf

    interrupt_on_sigterm()
    with progress_bar(output.name) as progress:
        notices = to_gguf(folder, output, outtype, force, progress=progress, **rest)
    for notice in notices:
        console.remark(f"Note: {notice}")
    return 0


@convert.command(
    epilog="""\b
Examples:
  rim-edge convert onnx my-model -o my-model-onnx
  rim-edge convert onnx base --adapter lora -o merged-onnx --precision int4"""
)
@source_options
@click.option(
    "--precision",
    type=click.Choice(["fp32", "int8", "int4"]),
    default="fp32",
    show_default=True,
    help="Type of the matrices.",
)
def onnx(folder: Path, output: Path, precision: str, force: bool, **rest: Any) -> int:
    """Convert DIR, a folder with config.json, *.safetensors and tokenizer.json, to an ONNX folder.

    Needs the extra rim-edge[onnx]. The families llama, qwen2, qwen3 and gemma3 (text) are known; gpt2 goes to GGUF
    only. The folder appears whole or not at all.
    """
    from rim_edge.convert.progress_bar import progress_bar
    from rim_edge.convert.to_onnx import convert as to_onnx

    interrupt_on_sigterm()
    with progress_bar(output.name) as progress:
        notices = to_onnx(folder, output, precision, force, progress=progress, **rest)
    for notice in notices:
        console.remark(f"Note: {notice}")
    return 0
