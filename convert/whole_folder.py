"""A folder that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .failure import ConvertError

#: what an ONNX folder holds: a folder with anything else in it is never replaced
FILES = {"model.onnx", "model.onnx.data", "genai_config.json", "tokenizer.json", "tokenizer_config.json"}


def check_output_folder(path: Path, force: bool) -> None:
    """Raise ConvertError where ``path`` cannot become a new folder."""
    if not path.absolute().parent.is_dir():
        raise ConvertError(f"{path.parent} is no folder: make it first, or choose another place")
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_dir():
        raise ConvertError(f"{path} is a file: give the name of a folder")
    held = {entry.name for entry in path.iterdir()}
    if held and not force:
        raise ConvertError(f"{path} exists: choose another name or give --force")
    if strange := sorted(held - FILES):
        raise ConvertError(f"{path} holds {strange[0]!r}, which is not of an ONNX folder: choose another name")


@contextmanager
def whole_folder(path: Path, force: bool = False) -> Iterator[Path]:
    """Yield a folder to write into, beside ``path``; it becomes ``path`` when the block ends well, else it goes.

    Raises ConvertError as :func:`check_output_folder` does, OSError.
    """
    check_output_folder(path, force)
    path = path.absolute()
    place = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        yield place
        umask = os.umask(0)
        os.umask(umask)
        for file in place.iterdir():
            file.chmod(0o666 & ~umask)
            _sync(file)
        place.chmod(0o777 & ~umask)
        _sync(place)
        check_output_folder(path, force)
        old = None
        if path.exists():
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".old"))
            os.replace(path, old)
        try:
            os.replace(place, path)
        except BaseException:
            if old is not None:
                os.replace(old, path)
            raise
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
        _sync(path.parent)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
