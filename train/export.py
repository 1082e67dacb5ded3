"""Export a checkpoint as a Hugging Face folder with its memory-slot metadata.

    python -m train.export runs/rim-tiny -o runs/rim-tiny/hf

Then ``python convert/to_gguf.py runs/rim-tiny/hf -o rim-tiny.gguf --outtype bf16`` makes the GGUF.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rim_edge.errors import SpecError
from rim_edge.spec import RimSpec
from train.checkpoint import load_checkpoint, weights_of
from train.curriculum import BLOCK_COUNT, BLOCK_SIZE
from train.folder import write_folder
from train.model import ModelConfig
from train.tokenizer import BEGIN, END, MEMORY, Vocabulary


def spec_of(vocabulary: Vocabulary, saved: dict[str, Any]) -> RimSpec:
    """The memory-slot metadata of a checkpoint."""
    return RimSpec(
        begin_id=vocabulary.ids[BEGIN],
        memory_id=vocabulary.ids[MEMORY],
        end_id=vocabulary.ids[END],
        block_count=BLOCK_COUNT,
        block_size=BLOCK_SIZE,
        max_block_count=BLOCK_COUNT,
        prompt_template="{{ question }}",
        answer_pattern=r"(-?\d+)",
        trained_direct=saved["stage"] == 2,  # refinement trains readout 0, too
        closed_vocabulary=True,
        source={
            "name": "rim-tiny",
            "license": "apache-2.0",
            "base": "none, trained from scratch",
            "data": "python -m train.data --split train (English arithmetic word problems, 1 to 5 steps)",
            "training": f"python -m train.run, {saved['samples']} samples in {saved['step']} steps",
        },
    )


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.export",
        description="Export a checkpoint of train.run as a Hugging Face folder.",
        epilog="example: python -m train.export runs/rim-tiny -o runs/rim-tiny/hf",
    )
    parser.add_argument("checkpoint", type=Path, help="a run's folder, or its checkpoint.pt")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--weights", choices=("average", "last"), default="average", help="(default average)")
    options = parser.parse_args(arguments)
    try:
        saved = load_checkpoint(options.checkpoint)
        vocabulary = Vocabulary(saved["tokenizer"])
        config = ModelConfig(**saved["config"])
        spec = spec_of(vocabulary, saved)
        spec.check_model(config.vocab_size, config.hidden_size)
        write_folder(options.output, config, weights_of(saved, options.weights), saved["tokenizer"], spec)
    except (OSError, ValueError, SpecError) as error:
        print(f"train.export: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
