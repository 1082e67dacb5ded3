"""The error of every converter: one line that says what is wrong and where."""

from __future__ import annotations

from rim_edge.errors import ModelFileError


class ConvertError(ModelFileError):
    """The model cannot be converted; the message says what is wrong, where, and what to do."""
