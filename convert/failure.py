"""The error of every converter: one line that says what is wrong and where."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rim_edge.errors import ModelFileError, RimError


class ConvertError(ModelFileError):
    """The model cannot be converted; the message says what is wrong, where, and what to do."""


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Turn what nonsense in a folder's files causes (a string in the place of a list, ...) into a ConvertError."""
    try:
        yield
    except RimError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, struct.error) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ConvertError(f"{folder}: a file holds something that cannot be read ({reason})") from error
