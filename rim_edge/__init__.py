"""RiM Edge: language models that reason in memory, on a laptop.

>>> import rim_edge
>>> with rim_edge.load() as model:
...     answer = model.ask("Tom has 5 apples and buys 3 more. How many apples does Tom have?")
>>> answer.text, answer.depth, answer.timings.ttft_ms
"""

from __future__ import annotations

from rim_edge import _library
from rim_edge.chat import Chat
from rim_edge.errors import (
    BackendError,
    BusyError,
    CancelledError,
    ClosedError,
    ContextFullError,
    LibraryMismatchError,
    ModelFileError,
    OptionError,
    RimError,
    SpecError,
    TemplateError,
    UnsupportedError,
)
from rim_edge.model import Model, load
from rim_edge.options import Options
from rim_edge.results import Answer, Message, ModelInfo, Readout, Timings, TokenCounts
from rim_edge.spec import RimSpec
from rim_edge.stream import Stream

__version__ = "0.1.0"

_library.preload()

__all__ = [
    "Answer",
    "BackendError",
    "BusyError",
    "CancelledError",
    "Chat",
    "ClosedError",
    "ContextFullError",
    "LibraryMismatchError",
    "Message",
    "Model",
    "ModelFileError",
    "ModelInfo",
    "OptionError",
    "Options",
    "Readout",
    "RimError",
    "RimSpec",
    "SpecError",
    "Stream",
    "TemplateError",
    "Timings",
    "TokenCounts",
    "UnsupportedError",
    "__version__",
    "load",
]
