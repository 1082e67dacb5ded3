"""onnxruntime-genai's graph builder in a child process: it imports torch and transformers; nothing else here does."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from .failure import ConvertError

PRECISIONS = ("fp32", "int8", "int4")
_PACKAGES = ("onnxruntime_genai", "onnx", "onnx_ir", "torch", "transformers")
_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore",
}


def check_builder() -> None:
    """Raise ConvertError where a package that the builder needs is missing."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise ConvertError(f"building an ONNX graph needs {', '.join(missing)}: pip install 'rim-edge[onnx]'")


def build(source: Path, output: Path, precision: str) -> None:
    """Build the folder ``output`` from the Hugging Face folder ``source``, hidden states included.

    ``precision``: of the matrices, one of ``PRECISIONS``; int8 and int4 are in blocks of 32, with activations in 8
    bits. Raises ConvertError with the builder's last line where it fails.
    """
    child = Path(__file__).with_name("onnx_child.py")
    command = [sys.executable, "-P", str(child)] if sys.version_info >= (3, 11) else [sys.executable, str(child)]
    command += ["-m", source.name, "-i", str(source), "-o", str(output)]
    command += ["-p", precision, "-e", "cpu", "-c", str(source / "cache"), "--extra_options"]
    command += ["include_hidden_states=true", "hf_token=false", *(["accuracy_level=4"] if precision != "fp32" else [])]
    with tempfile.TemporaryFile(dir=source) as log:
        process = subprocess.Popen(
            command,
            cwd=source,
            env={**os.environ, **_OFFLINE},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            status = process.wait()
        finally:
            if process.poll() is None:  # interrupted
                process.kill()
                process.wait()
        log.seek(0)
        lines = log.read().decode("utf-8", "replace").replace("\r", "\n").split("\n")
    if status != 0:
        said = [line.strip() for line in lines if line.strip()]
        reason = said[-1] if said else f"exit code {status}"
        raise ConvertError(f"the ONNX graph builder failed: {reason[:300]}")
