"""What children of the tests hold."""

from __future__ import annotations

import os
import signal
import sys

from rim_edge.errors import OptionError


class Counter:
    """Counts, fails, prints, dies."""

    def __init__(self, start: int = 0) -> None:
        if start < 0:
            raise OptionError(f"start is {start}")
        self.value = start

    def add(self, n: int) -> int:
        self.value += n
        return self.value

    def refuse(self) -> None:
        raise OptionError("no, choose another")

    def stumble(self) -> None:
        raise KeyError("gone")

    def shout(self) -> str:
        print("not an answer")
        os.write(1, b"nor this\n")
        return "quiet"

    def die(self) -> None:
        print("the last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    def threads(self) -> str | None:
        return os.environ.get("OMP_NUM_THREADS")
