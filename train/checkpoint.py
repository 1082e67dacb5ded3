"""Reading the checkpoints of ``train/run.py``; needs torch alone, not the runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def rounded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights rounded to the nearest BF16 values, still float32."""
    return {name: value.to(torch.bfloat16).float() for name, value in state.items()}


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The checkpoint in a file, or in a run's folder. Raises OSError or ValueError with one line."""
    file = path / "checkpoint.pt" if path.is_dir() else path
    try:
        saved: dict[str, Any] = torch.load(file, weights_only=True, map_location="cpu")
    except OSError:
        raise
    except Exception as error:  # torch raises many kinds for a file that is no checkpoint
        raise ValueError(f"{file} is no checkpoint of train.run ({type(error).__name__})") from None
    return saved


def weights_of(saved: dict[str, Any], which: str) -> dict[str, Tensor]:
    """``average`` or ``last`` weights, rounded to BF16. Falls back to ``last`` where no average exists yet."""
    average = saved.get("average")
    return rounded(average if which == "average" and average is not None else saved["model"])
