"""``python convert/to_gguf.py`` as a user runs it: exit codes, one line on standard error, and nothing half-written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from made_checkpoints import write_plain, write_rim

SCRIPT = Path(__file__).resolve().parents[1] / "convert" / "to_gguf.py"
#: runs the command; every piece that is written calls ``at_work``
PATCHED = """
import os, signal, resource, sys
from contextlib import contextmanager
from rim_edge.convert import command, to_gguf

@contextmanager
def bar(label):
    yield lambda done, total: at_work()

def at_work():
    {at_work}

command.progress_bar = bar
{before}
sys.exit(to_gguf.main(sys.argv[1:]))
"""


@pytest.fixture
def hf(tmp_path: Path) -> Path:
    write_rim(tmp_path / "hf")
    return tmp_path / "hf"


def run(*arguments: str | Path, code: str | None = None) -> subprocess.CompletedProcess[str]:
    start = ["-c", code] if code is not None else [str(SCRIPT)]
    command = [sys.executable, *start, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=Path(__file__).parent)


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "hf")


def test_it_converts_and_says_nothing(hf: Path, tmp_path: Path) -> None:
    done = run(hf, "-o", tmp_path / "model.gguf", "--outtype", "q8_0")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert left_in(tmp_path) == ["model.gguf"]
    assert (tmp_path / "model.gguf").stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_untrained_memory_tokens_are_told_of_loudly(tmp_path: Path) -> None:
    write_plain(tmp_path / "hf")
    done = run(tmp_path / "hf", "-o", tmp_path / "model.gguf", "--blocks", "8", "--block-size", "2")
    assert done.returncode == 0
    assert done.stderr.startswith("to_gguf: note: THE MEMORY TOKENS ARE UNTRAINED: 8 blocks of 2")


def test_a_failure_is_one_line_and_code_1(hf: Path, tmp_path: Path) -> None:
    done = run(tmp_path / "nowhere", "-o", tmp_path / "model.gguf")
    assert done.returncode == 1
    assert (
        done.stderr
        == f"to_gguf: {tmp_path}/nowhere does not exist: give the Hugging Face folder that holds config.json\n"
    )
    (hf / "model.safetensors").unlink()
    done = run(hf, "-o", tmp_path / "model.gguf")
    assert (done.returncode, done.stderr) == (1, f"to_gguf: {hf} has no *.safetensors file\n")
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["x"],
        ["x", "-o", "y", "--outtype", "q4_0"],
        ["x", "-o", "y", "--blocks", "0"],
        ["x", "-o", "y", "--block-size", "2"],
    ],
)
def test_wrong_usage_is_code_2(arguments: list[str]) -> None:
    assert run(*arguments).returncode == 2


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_conversion_leaves_nothing(name: str, hf: Path, tmp_path: Path) -> None:
    code = PATCHED.format(at_work=f"os.kill(os.getpid(), signal.{name})", before="")
    done = run(hf, "-o", tmp_path / "model.gguf", code=code)
    assert (done.returncode, done.stderr) == (130, "to_gguf: interrupted, nothing was written\n")
    assert left_in(tmp_path) == []


def test_a_killed_conversion_leaves_no_model(hf: Path, tmp_path: Path) -> None:
    code = PATCHED.format(at_work="os.kill(os.getpid(), signal.SIGKILL)", before="")
    done = run(hf, "-o", tmp_path / "model.gguf", code=code)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "model.gguf").exists()
    if hasattr(os, "O_TMPFILE"):  # Linux: the file has no name before it is whole
        assert left_in(tmp_path) == []


def test_a_full_disk_leaves_the_old_file(hf: Path, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text("precious")
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))"
    done = run(hf, "-o", tmp_path / "model.gguf", "--force", code=PATCHED.format(at_work="pass", before=limit))
    assert (done.returncode, done.stderr) == (1, f"to_gguf: {tmp_path}/model.gguf: File too large\n")
    assert left_in(tmp_path) == ["model.gguf"]
    assert (tmp_path / "model.gguf").read_text() == "precious"


def test_no_file_of_convert_is_named_like_a_dependency() -> None:
    dependencies = {
        "gguf",
        "numpy",
        "rich",
        "click",
        "onnx",
        "onnxruntime",
        "tokenizers",
        "safetensors",
        "torch",
        "peft",
    }
    names = {path.stem for path in SCRIPT.parent.iterdir()} - {"__init__", "__pycache__"}
    assert not names & (dependencies | set(sys.stdlib_module_names))


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; from rim_edge.cli import main; sys.exit(main())"
    return run("convert", *arguments, code=code)


def test_the_installed_command_gives_the_same_file(hf: Path, tmp_path: Path) -> None:
    assert command("gguf", hf, "-o", tmp_path / "a.gguf").returncode == 0
    assert run(hf, "-o", tmp_path / "b.gguf").returncode == 0
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
    done = command("gguf", hf, "-o", tmp_path / "a.gguf")
    assert done.returncode == 1
    assert done.stderr == f"Error: {tmp_path}/a.gguf exists: choose another name or give --force\n"
    assert command("gguf", hf).returncode == 2
    assert command("gguf", hf, "-o", tmp_path / "c.gguf", "--block-size", "2").returncode == 2
    assert left_in(tmp_path) == ["a.gguf", "b.gguf"]
