"""The ``rim-edge`` command: ``app.COMMANDS`` is the list of commands, each a module of its own."""

from __future__ import annotations

from rim_edge_command import main

__all__ = ["main"]
