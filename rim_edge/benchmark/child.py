"""A child process that lives long and answers requests, one line of JSON each way.

Each thing that is measured runs in a process of its own: what one of them allocates, loads or leaves in a library's
global state touches no other, and its peak memory is its own. Ctrl-C reaches the parent alone, which ends its children;
a child whose parent is gone ends by itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, TextIO

from rim_edge import errors
from rim_edge.errors import BackendError, RimError

if TYPE_CHECKING:
    from typing_extensions import Self

#: the child imports nothing from the current folder, and then takes the parent's places to import from
_START = (
    "import sys; sys.path.pop(0); import json; first = json.loads(sys.stdin.readline()); sys.path[:] = first['path']; "
    "from rim_edge.benchmark.child import serve; serve(first)"
)
_LAST_WORDS = 2000  # bytes of a dead child's standard error that are looked at


class ChildEndedError(BackendError):
    """A child process is no more."""


@contextlib.contextmanager
def _interrupts_later(caught: list[int]) -> Iterator[None]:
    """Keep Ctrl-C and SIGTERM meanwhile in ``caught``, for the caller to raise again.

    Python calls handlers in the main thread alone; elsewhere there is nothing to do.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(kind, lambda number, _: caught.append(number)) for kind in kinds]
    try:
        yield
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, signal.SIG_DFL if handler is None else handler)


class Child:
    """A process that holds ``target``, a class, and calls its methods. A context manager; :meth:`close` ends it.

    Args:
        target: ``module:Class``; the class is made with ``setup`` as keyword arguments, all of it JSON values.
        name: what the user calls it, for errors.
        environment: variables to set before the process starts.

    Attributes:
        start_ms: from the start of the process until the class was made, imports included.

    Raises:
        RimError: what the class raised when it was made.
        BackendError: the process ended, or failed in a way that is no user's fault.
    """

    def __init__(
        self, target: str, setup: Mapping[str, Any], *, name: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        began = time.perf_counter()
        interrupts: list[int] = []
        with _interrupts_later(interrupts):  # one inside of Popen would leave a process that nobody knows
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        try:
            for number in interrupts:
                signal.raise_signal(number)
            self._send({"path": sys.path, "target": target, "setup": dict(setup)})
            self._receive()
            self.start_ms = 1e3 * (time.perf_counter() - began)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def call(self, method: str, **arguments: Any) -> Any:
        """What ``method`` of the target returns for ``arguments``; raises what it raised, as the class does."""
        self._send({"method": method, "arguments": arguments})
        return self._receive()

    def close(self) -> None:
        """End the process at once, whatever it does. May be called again."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with contextlib.suppress(OSError):  # a request that it no longer reads
                    stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise self._ended() from None

    def _receive(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._ended()
        answer = json.loads(line)
        if "error" not in answer:
            return answer["result"]
        kind = getattr(errors, answer["error"], None)
        if isinstance(kind, type) and issubclass(kind, RimError):
            raise kind(answer["message"])
        raise BackendError(f"{self.name}: {answer['error']}: {answer['message']}")

    def _ended(self) -> ChildEndedError:
        if self._process.stdin is not None and self._process.stdin.closed:
            return ChildEndedError(f"{self.name}: the process was ended")
        code = self._process.wait()
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - _LAST_WORDS))
        said = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        hint = "; signal 9 often means that memory ran out" if code == -9 else ""
        return ChildEndedError(f"{self.name}: its process ended ({how}{hint})" + (f": {said[-1]}" if said else ""))


# ---- in the child ---------------------------------------------------------------------------------------------------


def serve(first: Mapping[str, Any]) -> None:
    """Make the target and answer requests until the parent is gone. Whatever prints, prints to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    module, _, name = first["target"].partition(":")
    target: Any = None
    try:
        target = getattr(import_module(module), name)(**first["setup"])
        _answer(answers, {"result": None})
    except Exception as error:
        _answer(answers, _failure(error))
    while True:
        request = json.loads(requests.get())
        try:
            _answer(answers, {"result": getattr(target, request["method"])(**request["arguments"])})
        except Exception as error:
            _answer(answers, _failure(error))


def _listen(requests: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)  # the parent has closed the pipe, or is no more


def _failure(error: Exception) -> dict[str, str]:
    return {"error": type(error).__name__, "message": str(error)}


def _answer(stream: TextIO, message: Mapping[str, Any]) -> None:
    try:
        stream.write(json.dumps(message) + "\n")
        stream.flush()
    except OSError:
        os._exit(0)
