"""Importing: what it loads, what it leaves alone, and how it refuses a libllama that it was not built for."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from shapes import make_model

from rim_edge import _library, _native
from rim_edge.errors import LibraryMismatchError

REPOSITORY = Path(__file__).resolve().parents[1]


def python(code: str, *arguments: object, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a fresh interpreter, with ``path`` in front of the search path."""
    front = f"import sys; sys.path.insert(0, {str(path)!r})\n" if path else ""
    command = [sys.executable, "-c", front + code, *map(str, arguments)]
    # elsewhere than in the checkout, whose rim_edge has no extension module where a wheel is installed
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=Path(__file__).parent)


def test_import_leaves_slow_packages_alone() -> None:
    slow = [
        "torch",
        "transformers",
        "gguf",
        "numpy",
        "llama_cpp",
        "jinja2",
        "rich",
        "prompt_toolkit",
        "onnxruntime",
        "click",
    ]
    done = python(f"import sys, rim_edge; print([name for name in {slow} if name in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


def test_a_question_on_the_command_line_leaves_numpy_alone(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model.gguf")
    code = """from rim_edge.cli.app import cli
try:
    cli(["ask", sys.argv[1], "Yes?", "--max-tokens", "2"])
finally:
    print("numpy" in sys.modules)
"""
    done = python("import sys\n" + code, model)
    assert done.stdout.splitlines()[-1:] == ["False"], done.stderr


def test_one_pin_everywhere() -> None:
    pins = re.findall(r"llama-cpp-python==([0-9.]+)", (REPOSITORY / "pyproject.toml").read_text())
    assert pins == [_library.LLAMA_CPP_PYTHON] * 2
    assert _native.BUILT_FOR == _library.LLAMA_CPP_PYTHON


def test_uses_the_library_of_the_installed_package() -> None:
    assert Path(_native.library_path()).parent == _library.package_folder() / "lib"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="libgomp is Linux's")
@pytest.mark.parametrize("set_by_user", ["", "77"])
def test_threads_that_wait_soon_sleep(set_by_user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("OMP_DISPLAY_ENV", "VERBOSE")  # libgomp tells what it has read
    monkeypatch.setenv("GOMP_SPINCOUNT", set_by_user)
    if not set_by_user:
        monkeypatch.delenv("GOMP_SPINCOUNT")
    done = python("import os, rim_edge; print(os.environ.get('GOMP_SPINCOUNT', ''))")
    assert f"GOMP_SPINCOUNT = '{set_by_user or _library.SPIN_COUNT}'" in done.stderr
    assert done.stdout.strip() == set_by_user  # the environment of the program is as it was


@pytest.mark.parametrize("imports", ["rim_edge, rim_edge._native, llama_cpp", "llama_cpp, rim_edge, rim_edge._native"])
def test_one_copy_beside_llama_cpp(imports: str) -> None:
    code = f"""
import {imports}, ctypes, os
handle = llama_cpp.llama_cpp._lib
address = ctypes.cast(handle.llama_version, ctypes.c_void_p).value
class Info(ctypes.Structure):
    _fields_ = [("file", ctypes.c_char_p), ("a", ctypes.c_void_p), ("b", ctypes.c_char_p), ("c", ctypes.c_void_p)]
info = Info()
ctypes.CDLL(None).dladdr(ctypes.c_void_p(address), ctypes.byref(info))
print(os.path.samefile(info.file.decode(), rim_edge._native.library_path()))
if os.path.exists("/proc/self/maps"):
    words = open("/proc/self/maps").read().split()
    files = {{word for word in words if "/libllama" in word or "/libggml" in word}}
    assert len(files) == len({{os.path.basename(file).partition(".")[0] for file in files}}), files
"""
    done = python(code)
    assert done.stdout.strip() == "True", done.stderr


def test_log_survives_a_second_user_of_libllama(tmp_path: Path) -> None:
    """llama_cpp takes the log callback away; the next load takes it back, and nothing reaches the terminal."""
    code = """
import logging, sys
import rim_edge._native as native
import llama_cpp
lines = []
handler = logging.Handler()
handler.emit = lambda record: lines.append(record.getMessage())
log = logging.getLogger("rim_edge.llama")
log.addHandler(handler)
log.setLevel(logging.DEBUG)
sys.path.insert(0, sys.argv[1])
from shapes import make_model
model = native.Model(str(make_model(sys.argv[2])))
print(any("llama_model_loader" in line for line in lines), any("\\n" in line for line in lines))
"""
    done = python(code, Path(__file__).parent, tmp_path / "model.gguf")
    assert (done.stdout.split(), done.stderr) == (["True", "False"], "")


def test_log_is_silent_without_a_handler(tmp_path: Path) -> None:
    code = """
import sys
import rim_edge._native as native
from rim_edge.errors import ModelFileError
sys.path.insert(0, sys.argv[1])
from shapes import make_model
native.Model(str(make_model(sys.argv[2])))
try:
    native.Model(str(make_model(sys.argv[2], metadata={"llama.block_count": 3})))
except ModelFileError:
    print("refused")
"""
    done = python(code, Path(__file__).parent, tmp_path / "model.gguf")
    assert (done.stdout, done.stderr) == ("refused\n", "")


def fake_package(folder: Path, version: str, real: bool) -> None:
    """A package ``llama_cpp`` of another version, with or without a library that can be loaded."""
    package = folder / "llama_cpp"
    (package / "lib").mkdir(parents=True)
    (package / "__init__.py").write_text(f'__version__ = "{version}"\n')
    for file in (_library.package_folder() / "lib").iterdir():
        target = package / "lib" / file.name
        if real:
            shutil.copy(file, target)
        else:
            target.write_bytes(b"not a library")


def test_other_version_is_refused(tmp_path: Path) -> None:
    fake_package(tmp_path, "0.3.35", real=True)
    done = python("import rim_edge", path=tmp_path)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert "LibraryMismatchError" in last
    assert "0.3.35" in last and f"pip install --force-reinstall llama-cpp-python=={_native.BUILT_FOR}" in last


def test_broken_library_is_refused(tmp_path: Path) -> None:
    fake_package(tmp_path, _native.BUILT_FOR, real=False)
    done = python("import rim_edge", path=tmp_path)
    assert "LibraryMismatchError: libllama cannot be loaded" in done.stderr


def test_library_from_elsewhere_is_refused(tmp_path: Path) -> None:
    fake_package(tmp_path, _native.BUILT_FOR, real=True)
    name = Path(_native.library_path()).name
    code = f"""
import ctypes
ctypes.CDLL({str(tmp_path / "llama_cpp" / "lib" / name)!r})
import rim_edge
from rim_edge import _native
"""
    done = python(code)
    assert "LibraryMismatchError: this process already uses another libllama" in done.stderr


def test_missing_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LibraryMismatchError, match="llama-cpp-python is not installed"):
        _library.package_folder()


def test_a_path_with_spaces(tmp_path: Path) -> None:
    """The package works from wherever it is copied to."""
    folder = tmp_path / "a folder with spaces"
    source = Path(_native.__file__).parent
    shutil.copytree(REPOSITORY / "rim_edge", folder / "rim_edge", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(_native.__file__, folder / "rim_edge")
    shutil.copytree(_library.package_folder(), folder / "llama_cpp", ignore=shutil.ignore_patterns("__pycache__"))
    assert source.exists()
    # -S leaves the editable finder out, which would find the installed package first
    code = f"import sys; sys.path += {sys.path!r}; from rim_edge import _native; print(_native.library_path())"
    front = f"import sys; sys.path.insert(0, {str(folder)!r})\n"
    done = subprocess.run([sys.executable, "-S", "-c", front + code], capture_output=True, text=True, check=False)
    assert done.stdout.startswith(str(folder)), done.stderr


def test_stub_and_marker_are_installed() -> None:
    folders = [Path(_native.__file__).parent, REPOSITORY / "rim_edge"]
    assert any((folder / "py.typed").exists() for folder in folders)
    stub = (Path(_native.__file__).parent / "_native.pyi").read_text()
    assert "class Model:" in stub and "class GgufFile:" in stub and "class Session:" in stub
