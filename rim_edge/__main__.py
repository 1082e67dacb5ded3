"""``python -m rim_edge`` is the command ``rim-edge``."""

from __future__ import annotations

from rim_edge.cli import main

if __name__ == "__main__":
    main()
