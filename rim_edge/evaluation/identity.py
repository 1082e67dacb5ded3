"""Which file it was: SHA-256 of a model file, of a model folder, or of the data."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20


def identity(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Name, bytes and SHA-256 of a file; of a folder the sum of bytes, and the hash over names and contents.

    Raises OSError.
    """
    path = Path(path)
    total, digest = 0, hashlib.sha256()
    if path.is_dir():
        for file in sorted(item for item in path.rglob("*") if item.is_file()):
            inner, size = _hashed(file)
            digest.update(f"{file.relative_to(path).as_posix()}\0{inner.hexdigest()}\n".encode())
            total += size
    else:
        digest, total = _hashed(path)
    return {"name": path.name, "size_bytes": total, "sha256": digest.hexdigest()}


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal. Raises OSError."""
    return _hashed(path)[0].hexdigest()


def _hashed(path: Path) -> tuple[hashlib._Hash, int]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return digest, size
