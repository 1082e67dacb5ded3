"""Running the quantizer in a child process: Ctrl-C, a crash, or a lack of memory there leaves nothing behind."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from rim_edge import errors

from ..failure import ConvertError


def run_quantizer(source: Path, place: Path, options: dict[str, Any], on_tensor: Callable[[str], bool]) -> None:
    """Write the quantized ``source`` to ``place``, a file that is open in this process or a path.

    Args:
        options: arguments of ``_native.QuantizeOptions``.
        on_tensor: gets the name of each tensor when work on it begins; returning False stops.

    Raises:
        CancelledError: ``on_tensor`` returned False. ConvertError, ModelFileError, OptionError: it failed.
    """
    child = Path(__file__).with_name("child.py")
    command = [sys.executable, "-P", str(child)] if sys.version_info >= (3, 11) else [sys.executable, str(child)]
    job = pickle.dumps({"source": os.fspath(source.absolute()), "target": os.fspath(place), "options": options})
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            pass_fds=_descriptors(place),
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            with suppress(BrokenPipeError):  # it ended at once: its status says why
                process.stdin.write(job)
                process.stdin.flush()
            finished = _listen(process.stdout, on_tensor)
            status = process.wait()
        finally:
            if process.poll() is None:  # interrupted
                process.kill()
                process.wait()
            with suppress(BrokenPipeError):
                process.stdin.close()
            process.stdout.close()
        if not finished:
            log.seek(0)
            raise ConvertError(f"{source} cannot be quantized: {_reason(status, log.read())}")


def _descriptors(place: Path) -> tuple[int, ...]:
    """The open file that ``place`` stands for, if it has no name of its own: the child opens it anew."""
    return (int(place.name),) if place.parent == Path("/proc/self/fd") else ()


def _listen(lines: IO[bytes], on_tensor: Callable[[str], bool]) -> bool:
    """Pass on what the child says; whether it got to the end."""
    for line in lines:
        said: dict[str, Any] = json.loads(line)
        if "tensor" in said and not on_tensor(str(said["tensor"])):
            raise errors.CancelledError("quantizing was cancelled")
        if "error" in said:
            name, message = said["error"]
            raise getattr(errors, name, errors.RimError)(message)
        if "done" in said:
            return True
    return False


def _reason(status: int, log: bytes) -> str:
    if status == -9:
        return "the process was killed, most likely for want of memory: close other programs"
    lines = [line.strip() for line in log.decode("utf-8", "replace").splitlines() if line.strip()]
    return f"libllama gave up ({lines[-1][:200] if lines else f'status {status}'})"
