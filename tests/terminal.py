"""Drives a command in a pseudo-terminal, as a person would: types keys, waits for text on the screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from typing import Any

_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_=>])")
#: the command as the installed script runs it
COMMAND = [sys.executable, "-c", "from rim_edge_command import main; main()"]
CTRL_C, CTRL_D, ENTER, ALT_ENTER, TAB = "\x03", "\x04", "\r", "\x1b\r", "\t"


def environment(folder: os.PathLike[str] | str, **changes: str) -> dict[str, str]:
    """This process's environment with its own state folder, and nothing that changes how the command prints."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "RIM_EDGE_DEBUG", "LINES")}
    return kept | {"XDG_STATE_HOME": str(folder), "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"} | changes


class Terminal:
    """A command that believes to run in a terminal of 100 columns. A context manager; the process never outlives it.

    Attributes:
        screen: all that was printed, escape sequences and carriage returns removed.
        raw: the same as it came.
    """

    def __init__(self, *arguments: str, env: Mapping[str, str], rows: int = 40, columns: int = 100) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=dict(env),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self._slave = slave  # kept open: its state can be looked at after the end
        self.raw = ""
        self._seen = 0

    @property
    def screen(self) -> str:
        return _ESCAPES.sub("", self.raw).replace("\r", "")

    def send(self, keys: str) -> None:
        """Type ``keys``."""
        os.write(self._master, keys.encode())

    def expect(self, text: str, seconds: float = 60.0) -> str:
        """Wait until ``text`` appears after what was waited for before; returns what came until then."""
        end = time.monotonic() + seconds
        while True:
            found = self.screen.find(text, self._seen)
            if found >= 0:
                before = self.screen[self._seen : found]
                self._seen = found + len(text)
                return before
            if not self._read(end - time.monotonic()):
                raise AssertionError(
                    f"{text!r} did not appear; the screen after the last match: {self.screen[self._seen :]!r}"
                )

    def insist(self, keys: str, text: str) -> None:
        """Type ``keys``, again where ``text`` stays away: input() misses a signal that comes before it reads."""
        for _ in range(20):
            self.send(keys)
            try:
                self.expect(text, seconds=3.0)
                return
            except AssertionError:
                continue
        raise AssertionError(f"{text!r} did not appear; the screen: {self.screen!r}")

    def expect_more(self, seconds: float = 60.0) -> None:
        """Wait until anything visible appears after what was waited for before."""
        end = time.monotonic() + seconds
        while not self.screen[self._seen :].strip():
            if not self._read(end - time.monotonic()):
                raise AssertionError(f"nothing appeared after {self.screen[: self._seen]!r}")

    def wait(self, seconds: float = 60.0) -> int:
        """Wait for the end; returns the exit code."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            if time.monotonic() > end:
                raise AssertionError(f"still running; the screen: {self.screen!r}")
            self._read(0.05)
        while self._read(0.0):
            pass
        return self.process.returncode

    def echoes(self) -> bool:
        """Whether the terminal echoes typed keys, as a shell needs it afterwards."""
        return bool(termios.tcgetattr(self._slave)[3] & termios.ECHO)

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, seconds))
        if not ready:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:
            return False
        self.raw += data.decode("utf-8", "replace")
        return bool(data)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        os.close(self._master)
        os.close(self._slave)
