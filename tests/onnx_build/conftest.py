"""These tests build graphs and compare with PyTorch; without the packages for that none of them is collected."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path += [str(TESTS), str(TESTS / "convert")]  # the checkpoints of every family

collect_ignore_glob: list[str] = []
if any(find_spec(name) is None for name in ("torch", "transformers", "onnx", "onnx_ir", "onnxruntime_genai")):
    collect_ignore_glob.append("test_*.py")
