"""Entry point of the ``rim-edge`` command, outside of ``rim_edge`` so that even a failing import of that is one line.

An installation whose libllama does not fit refuses to be imported, and Ctrl-C may come while modules are still loading.
"""

from __future__ import annotations

import os
import sys

try:
    import signal
    from types import FrameType
except KeyboardInterrupt:
    os._exit(130)


def main() -> None:
    """Run ``rim-edge`` with the arguments of this process; leaves through ``SystemExit``."""
    before = signal.signal(signal.SIGINT, _interrupted)
    try:
        from rim_edge.cli.app import cli
    except ImportError as error:
        if os.environ.get("RIM_EDGE_DEBUG"):
            raise
        sys.exit("Error: " + " ".join(str(error).split()))
    signal.signal(signal.SIGINT, before)
    try:
        cli.main(prog_name="rim-edge")
    finally:  # a Ctrl-C during Python's own shutdown must not print a traceback
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _interrupted(_signal: int, _frame: FrameType | None) -> None:
    os.write(2, b"Error: interrupted\n")
    os._exit(130)
