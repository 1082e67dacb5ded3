"""Finding the one libllama: the copy inside the installed package ``llama_cpp``, of exactly the pinned version.

``rim_edge._native`` is linked with libllama by its short name. :func:`preload` loads the file that ``import llama_cpp``
would load, before ``_native`` is imported, so that both share one copy; a second one would have its own log callback
and its own devices.
``llama_cpp`` itself is never imported: that takes half a second.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from rim_edge.errors import LibraryMismatchError

#: the version of llama-cpp-python that pyproject.toml pins, in two places
LLAMA_CPP_PYTHON = "0.3.36"

_REINSTALL = f"run: pip install --force-reinstall llama-cpp-python=={LLAMA_CPP_PYTHON}"
_FILE_NAMES = {"darwin": "libllama.dylib", "win32": "llama.dll"}
_LOG_LEVELS = {3: logging.WARNING, 4: logging.ERROR}  # of ggml_log_level; the rest is for the curious

#: how often a thread of libgomp looks again before it sleeps, while it waits for the others. libgomp's own default is
#: 300,000: tens of milliseconds, in which another program on the same cores must wait. These are 0.1 to 0.4 ms, where a
#: hypervisor stops long waits 2.5 ms, so that threads are still awake when the next token has been chosen
SPIN_COUNT = 10_000

_loaded: ctypes.CDLL | None = None
_was_first = False  # whether libllama came into the process by preload()


def package_folder() -> Path:
    """Folder of the installed package ``llama_cpp``.

    Raises:
        LibraryMismatchError: it is not installed.
    """
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        raise LibraryMismatchError(f"llama-cpp-python is not installed, RiM Edge needs its libllama: {_REINSTALL}")
    return Path(spec.origin).parent


def installed_version(folder: Path) -> str | None:
    """Version of the llama-cpp-python in ``folder`` as its ``__init__.py`` says, None if it does not say."""
    try:
        source = (folder / "__init__.py").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^__version__\s*=\s*[\"']([^\"'+]+)", source, re.MULTILINE)
    return found[1] if found else None


def preload() -> None:
    """Load libllama from the package ``llama_cpp``; cheap when called again.

    Raises:
        LibraryMismatchError: another version is installed, or the library is missing or cannot be loaded.
    """
    global _loaded, _was_first
    if _loaded is not None:
        return
    folder = package_folder()
    version = installed_version(folder)
    if version is not None and version != LLAMA_CPP_PYTHON:
        raise LibraryMismatchError(
            f"RiM Edge was built for llama-cpp-python {LLAMA_CPP_PYTHON}, but {version} is installed in {folder}: "
            f"{_REINSTALL}"
        )
    path = folder / "lib" / _FILE_NAMES.get(sys.platform, "libllama.so")
    try:
        with _short_waits():
            _was_first = not _is_loaded(path)
            _loaded = ctypes.CDLL(str(path))
    except OSError as error:
        raise LibraryMismatchError(f"libllama cannot be loaded ({error}): {_REINSTALL}") from None


def _is_loaded(path: Path) -> bool:
    """Whether the library is in this process; True where the system cannot say."""
    if not hasattr(os, "RTLD_NOLOAD"):
        return True
    try:
        ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:
        return False
    return True


@contextmanager
def _short_waits() -> Iterator[None]:
    """libgomp reads the environment when it is loaded; what the user set there stays."""
    if "GOMP_SPINCOUNT" in os.environ or "OMP_WAIT_POLICY" in os.environ:
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)
    try:
        yield
    finally:
        del os.environ["GOMP_SPINCOUNT"]


def attach(native: ModuleType) -> None:
    """Called by ``rim_edge._native`` at its import: refuse a libllama from elsewhere, and send the log to ``logging``.

    The lines go to the logger ``rim_edge.llama``: libllama's information as DEBUG, its warnings and errors as such.
    Without a handler of the application's nothing is shown.

    Raises:
        LibraryMismatchError: the process had loaded another libllama before.
    """
    path, folder = str(native.library_path()), package_folder() / "lib"
    if not os.path.samefile(Path(path).parent, folder):
        raise LibraryMismatchError(
            f"this process already uses another libllama, {path}, instead of the one in {folder}: "
            "import rim_edge first, or remove the other one"
        )
    if _was_first:  # else another thread may be computing
        native.replace_barrier()
    logging.getLogger("rim_edge").addHandler(logging.NullHandler())
    log = logging.getLogger("rim_edge.llama").log
    native.set_log_callback(lambda level, line: log(_LOG_LEVELS.get(level, logging.DEBUG), "%s", line))
