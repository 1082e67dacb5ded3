"""The ``rim-edge`` command: ``main`` is its entry point, ``app.COMMANDS`` the list of commands, each a module."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run ``rim-edge`` with the arguments of this process; leaves through ``SystemExit``."""
    try:
        from rim_edge.cli.app import cli
    except KeyboardInterrupt:  # Ctrl-C while Python still imports
        sys.exit(130)
    try:
        cli.main(prog_name="rim-edge")
    finally:  # a Ctrl-C during Python's own shutdown must not print a traceback
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    main()
