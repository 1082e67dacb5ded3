"""A file that appears whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .failure import ConvertError


def check_output(path: Path, force: bool) -> None:
    """Raise ConvertError where ``path`` cannot become a new file."""
    if path.is_dir():
        raise ConvertError(f"{path} is a folder: give the name of a file")
    if not path.parent.is_dir():
        raise ConvertError(f"{path.parent} is no folder: make it first, or choose another place")
    if path.exists() and not force:
        raise ConvertError(f"{path} exists: choose another name or give --force")


@contextmanager
def whole_file(path: Path, force: bool = False) -> Iterator[Path]:
    """Yield a path to write to; what was written becomes ``path`` when the block ends well.

    On Linux the file has no name until then, so that nothing is left whatever ends the process; elsewhere it is a
    temporary file beside ``path``, removed by every exception. Raises ConvertError as :func:`check_output` does,
    OSError.
    """
    check_output(path, force)
    handle = _nameless(path.parent)
    name = None
    try:
        if handle is None:
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        yield Path(name or f"/proc/self/fd/{handle}")
        os.fsync(handle)
        umask = os.umask(0)
        os.umask(umask)
        os.fchmod(handle, 0o666 & ~umask)
        check_output(path, force)
        name = name or _named(handle, path)
        os.replace(name, path)
        _sync_folder(path.parent)
    except BaseException:
        if name is not None:
            with suppress(OSError):
                os.unlink(name)
        raise
    finally:
        if handle is not None:
            os.close(handle)


def _nameless(folder: Path) -> int | None:
    """A new file without a name, open for writing; None where the system has no such thing."""
    if not hasattr(os, "O_TMPFILE") or not os.path.isdir("/proc/self/fd"):
        return None
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        return None  # this file system has none; what is really wrong shows when a named file is made


def _named(handle: int, path: Path) -> str:
    """Give a file its first name, beside ``path``."""
    name = str(path.with_name(f".{path.name}.{os.getpid()}.tmp"))
    with suppress(FileNotFoundError):
        os.unlink(name)
    os.link(
        f"/proc/self/fd/{handle}", name, src_dir_fd=0, follow_symlinks=True
    )  # src_dir_fd: only linkat can follow the link
    return name


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
