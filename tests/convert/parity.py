"""Logits at every block readout: a GGUF through the latent loop against PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import transformers
from checkpoints import torch_logits

from rim_edge import _native
from rim_edge.spec import RimSpec

#: largest difference; of gpt2 and gemma3 relative to the logits' range (libllama's GELU is a half-precision table)
TOLERANCE = 1e-3
RELATIVE = ("gpt2", "gemma3")
PROMPT = [5, 17, 250, 33, 9, 201, 77, 140, 6, 300, 42, 11, 190, 8, 256, 91, 63, 27]


def readout_logits(path: Path, prompt: list[int]) -> tuple[npt.NDArray[np.float32], RimSpec]:
    """``[K, n_vocab] float32`` at the end token of each block, computed in F32, and the file's metadata."""
    model = _native.Model(str(path))
    spec = RimSpec.from_gguf(_native.GgufFile(str(path)).metadata, model.n_embd)
    assert spec is not None
    blocks = _native.Blocks(
        begin_id=spec.begin_id,
        memory_id=spec.memory_id,
        end_id=spec.end_id,
        size=spec.block_size,
        count=spec.block_count,
        prefix=[],
    )
    options = _native.SessionOptions(n_ctx=512, n_threads=1, cache_type="f32", flash_attention="off")
    with_blocks = _native.Session(model, blocks, options)
    (readouts,) = with_blocks.think([prompt], spec.block_count, logits=True)
    with_blocks.close()
    return np.stack([readout.logits for readout in readouts]), spec


def check_parity(
    path: Path, model: transformers.PreTrainedModel, family: str, prompt: list[int] | None = None
) -> float:
    """Assert parity of every readout; returns the largest difference (relative for ``RELATIVE`` families)."""
    prompt = prompt or PROMPT
    ours, spec = readout_logits(path, prompt)
    tokens = [*prompt, *list(spec.block_tokens) * spec.block_count]
    rows = [len(prompt) - 1 + spec.block_width * (k + 1) for k in range(spec.block_count)]
    theirs = torch_logits(model, tokens, rows)
    n_vocab = theirs.shape[1]
    difference = float(np.abs(ours[:, :n_vocab] - theirs).max())
    if family in RELATIVE:
        difference /= float(theirs.max() - theirs.min())
    assert difference <= TOLERANCE, f"{family}: {difference:.2e}"
    visible = np.array([index not in spec.memory_ids for index in range(n_vocab)])
    assert (
        np.where(visible, ours[:, :n_vocab], -np.inf).argmax(1) == np.where(visible, theirs, -np.inf).argmax(1)
    ).all()
    return difference
