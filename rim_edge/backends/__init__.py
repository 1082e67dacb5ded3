"""Back ends: one protocol (:mod:`rim_edge.backends.base`), one implementation per file format."""

from __future__ import annotations

from pathlib import Path

from rim_edge.backends.base import Backend, LoadOptions
from rim_edge.errors import ModelFileError


def open_backend(path: Path, options: LoadOptions) -> Backend:
    """Open the model at ``path`` with the back end that its format needs.

    Raises:
        ModelFileError: nothing there, or nothing that can be run.
    """
    if not path.exists():
        raise ModelFileError(f"{path}: no such file; give the path of a .gguf model")
    if path.is_dir():
        raise ModelFileError(f"{path}: is a directory; give the path of a .gguf model")
    from rim_edge.backends.gguf import GgufBackend

    return GgufBackend(path, options)
