"""Every error that RiM Edge raises on purpose, each message one line that says what, where and what to do.

The command line prints ``str(error)`` on one line and leaves with ``error.exit_code``.
"""

from __future__ import annotations


class RimError(Exception):
    """Base of all errors meant for a user's eyes."""

    exit_code: int = 1


class ModelFileError(RimError):
    """The model file is missing, damaged, or not something that can be run."""


class SpecError(ModelFileError):
    """The memory-slot metadata (``rim.*``) is incomplete, wrong, contradicts the vocabulary, or is too new."""


class UnsupportedError(RimError):
    """The model cannot do what was asked (a probe it has not, blocks on a recurrent model); the message says why."""


class OptionError(RimError, ValueError):
    """An option has a value that makes no sense (depth out of range, unknown selection, negative temperature, ...)."""

    exit_code = 2


class TemplateError(RimError):
    """The chat or prompt template cannot be rendered."""


class ContextFullError(RimError):
    """The conversation does not fit the context. Raised before any work is done.

    Attributes:
        needed: tokens that the request needs, memory blocks and one answer token included.
        available: tokens that the context holds.
        turns: oldest turns of a chat to drop so that it fits again; 0 where dropping does not help.
    """

    def __init__(self, message: str, needed: int = 0, available: int = 0, turns: int = 0) -> None:
        super().__init__(message)
        self.needed = needed
        self.available = available
        self.turns = turns


class CancelledError(RimError):
    """The work was stopped by ``cancel()`` or by a progress callback that returned ``False``."""

    exit_code = 130


class BusyError(RimError):
    """A chat or session is already at work in another call."""


class ClosedError(RimError):
    """A model or chat was used after ``close()``."""


class BackendError(RimError):
    """The library underneath failed while computing; the session was cleaned and can be used again."""


class LibraryMismatchError(RimError, ImportError):
    """The libllama that was found is not the one that RiM Edge was built for."""
