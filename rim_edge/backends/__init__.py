"""Back ends: one protocol (:mod:`rim_edge.backends.base`), one implementation per file format."""

from __future__ import annotations

from pathlib import Path

from rim_edge.backends.base import Backend, LoadOptions
from rim_edge.errors import ModelFileError


def open_backend(path: Path, options: LoadOptions) -> Backend:
    """Open the model at ``path`` with the back end that its format needs: a GGUF file, or a folder with ``model.onnx``.

    Raises:
        ModelFileError: nothing there, or nothing that can be run.
    """
    if not path.exists():
        raise ModelFileError(f"{path}: no such file; give the path of a .gguf model or of an ONNX folder")
    from rim_edge.backends.onnx_folder import is_onnx

    if is_onnx(path):
        from rim_edge.backends.onnx import OnnxBackend

        return OnnxBackend(path, options)
    if path.is_dir():
        hint = "convert it first (rim-edge convert)" if (path / "config.json").exists() else "give a .gguf model"
        raise ModelFileError(f"{path}: is a directory without model.onnx; {hint}")
    from rim_edge.backends.gguf import GgufBackend

    return GgufBackend(path, options)
