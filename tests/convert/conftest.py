"""These tests compare with PyTorch; without the extra `parity` none of them is collected."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # what these tests share with those that need no PyTorch

collect_ignore_glob: list[str] = []
if any(find_spec(name) is None for name in ("torch", "transformers", "peft", "safetensors", "tokenizers")):
    collect_ignore_glob.append("test_*.py")
