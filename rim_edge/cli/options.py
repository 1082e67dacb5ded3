"""Options that several commands share, named as users of llama.cpp expect them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from rim_edge.memory import CACHE_BYTES
from rim_edge.options import SELECTIONS

F = TypeVar("F", bound=Callable[..., Any])

#: names of the options of ``model_options``; the rest of a command's options go to ``Model.ask`` and ``Model.chat``
LOADING = ("threads", "ctx", "gpu_layers", "cache_type", "flash_attention", "mmap")
GENERATION = (
    "blocks",
    "select",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "seed",
    "repeat_penalty",
    "max_tokens",
    "stop",
)


def parse_depth(text: str) -> int | str:
    """``auto`` or a whole number from 0. Raises ValueError with a message for anything else."""
    word = text.strip().lower()
    if word == "auto":
        return "auto"
    if word.isascii() and word.isdigit() and len(word) < 6:
        return int(word)
    raise ValueError(f"{text!r} is no depth: give a number of blocks, 0 for a direct answer, or auto")


def _depth(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | str | None:
    try:
        return None if value is None else parse_depth(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _gpu_layers(_ctx: click.Context, _param: click.Parameter, value: str) -> int:
    word = value.strip().lower()
    if word in ("all", "auto", "-1"):
        return -1
    if word.isascii() and word.isdigit() and len(word) < 6:
        return int(word)
    raise click.BadParameter(f"{value!r} is no number of layers: give a number, or all")


def _apply(function: F, decorators: list[Callable[[F], F]]) -> F:
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


def rim_options(function: F) -> F:
    """``--blocks`` and ``--select``."""
    return _apply(
        function,
        [
            click.option(
                "-b",
                "--blocks",
                metavar="N|auto",
                callback=_depth,
                help="Memory blocks to run: a number, 0 for a direct answer, or auto. [default: as trained]",
            ),
            click.option(
                "--select",
                type=click.Choice(SELECTIONS, case_sensitive=False),
                default="final",
                show_default=True,
                help="Which readout gives the answer.",
            ),
        ],
    )


def sampling_options(function: F) -> F:
    """Temperature and its companions, ``--seed``, ``--max-tokens``, ``--stop``, ``--system``."""
    return _apply(
        function,
        [
            click.option(
                "--temp",
                "--temperature",
                "temperature",
                type=click.FloatRange(min=0.0),
                default=0.0,
                show_default=True,
                help="Sampling temperature; 0 takes the most probable token.",
            ),
            click.option(
                "--top-k",
                type=click.IntRange(min=0),
                default=40,
                show_default=True,
                help="Sample among the k best tokens; 0: all.",
            ),
            click.option(
                "--top-p",
                type=click.FloatRange(0.0, 1.0, min_open=True),
                default=0.95,
                show_default=True,
                help="Sample among the best tokens that hold this probability.",
            ),
            click.option(
                "--min-p",
                type=click.FloatRange(0.0, 1.0),
                default=0.05,
                show_default=True,
                help="Drop tokens below this share of the best one's probability.",
            ),
            click.option(
                "-s", "--seed", type=click.IntRange(-1, 2**32 - 2), help="Seed of the sampler. [default: random]"
            ),
            click.option(
                "--repeat-penalty",
                type=click.FloatRange(min=0.0, min_open=True),
                default=1.0,
                show_default=True,
                help="Penalty on repeated tokens; 1: none.",
            ),
            click.option(
                "-n",
                "--max-tokens",
                "--predict",
                "max_tokens",
                type=click.IntRange(min=1),
                help="Longest answer. [default: what the context holds]",
            ),
            click.option(
                "--stop",
                multiple=True,
                metavar="TEXT",
                help="End the answer before this text; may be given several times.",
            ),
            click.option("--system", "-sys", metavar="TEXT", help="System message."),
        ],
    )


def model_options(function: F) -> F:
    """How the model is loaded: threads, context, GPU layers, cache, memory mapping."""
    return _apply(
        function,
        [
            click.option(
                "-t", "--threads", type=click.IntRange(1, 1024), help="Threads to compute with. [default: one per core]"
            ),
            click.option(
                "-c",
                "--ctx",
                "--ctx-size",
                "ctx",
                type=click.IntRange(min=1),
                help="Context in tokens. [default: the model's, at most 4096]",
            ),
            click.option(
                "-ngl",
                "--gpu-layers",
                "--n-gpu-layers",
                "gpu_layers",
                metavar="N|all",
                callback=_gpu_layers,
                default="all",
                help="Layers to run on the GPU. [default: all]",
            ),
            click.option(
                "-ctk",
                "--cache-type",
                type=click.Choice(tuple(CACHE_BYTES), case_sensitive=False),
                default="f16",
                show_default=True,
                help="Number format of the KV cache.",
            ),
            click.option(
                "-fa",
                "--flash-attention",
                "--flash-attn",
                "flash_attention",
                type=click.Choice(("auto", "on", "off"), case_sensitive=False),
                default="auto",
                show_default=True,
                help="Fused attention.",
            ),
            click.option("--mmap/--no-mmap", default=True, help="Map the file into memory, or read it."),
        ],
    )


def loading(options: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of ``rim_edge.load`` out of a command's options."""
    return {
        "n_ctx": options["ctx"],
        "n_threads": options["threads"],
        "n_gpu_layers": options["gpu_layers"],
        "cache_type": options["cache_type"],
        "flash_attention": options["flash_attention"],
        "use_mmap": options["mmap"],
    }


def generation(options: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of ``Model.ask`` and ``Chat.stream`` out of a command's options."""
    values = {name: options[name] for name in GENERATION}
    if values["seed"] == -1:  # llama.cpp's word for random
        values["seed"] = None
    return values
