"""Child processes that answer requests: results, errors as their classes, and no process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rim_edge.benchmark.child import Child, ChildEndedError
from rim_edge.errors import BackendError, OptionError

TARGET = "bench_targets:Counter"


def counter(start: int = 0) -> Child:
    return Child(TARGET, {"start": start}, name="the counter")


def is_there(pid: int) -> bool:
    """Whether a process runs (one that ended and was not waited for does not)."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(found.stdout.strip()) and not found.stdout.strip().startswith("Z")


def wait_gone(pid: int, seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while is_there(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not is_there(pid)


def test_requests_are_answered_in_order_and_state_stays() -> None:
    with counter(5) as child:
        assert [child.call("add", n=1), child.call("add", n=2)] == [6, 8]
        assert child.start_ms > 0


def test_errors_come_back_as_their_classes_and_the_child_lives_on() -> None:
    with pytest.raises(OptionError, match="start is -1"):
        counter(-1)
    with counter() as child:
        with pytest.raises(OptionError, match="choose another"):
            child.call("refuse")
        with pytest.raises(BackendError, match="the counter: KeyError: 'gone'"):
            child.call("stumble")
        with pytest.raises(BackendError, match="the counter: AttributeError"):
            child.call("no_such_method")
        assert child.call("add", n=1) == 1


def test_what_a_library_prints_disturbs_nobody() -> None:
    with counter() as child:
        assert child.call("shout") == "quiet"


def test_a_child_that_dies_is_named_with_its_last_words() -> None:
    with counter() as child:
        with pytest.raises(ChildEndedError, match=r"the counter: .*signal 9.*memory.*the last words"):
            child.call("die")
        with pytest.raises(ChildEndedError):
            child.call("add", n=1)


def test_files_in_the_current_folder_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    with counter() as child:
        assert child.call("add", n=1) == 1


def test_no_process_outlives_close() -> None:
    child = counter()
    pid = child.pid
    assert is_there(pid)
    child.close()
    child.close()
    assert not is_there(pid)
    with pytest.raises(ChildEndedError, match="the process was ended"):
        child.call("add", n=1)


def test_a_child_ends_when_its_parent_is_killed() -> None:
    code = (
        f"from rim_edge.benchmark.child import Child; c = Child({TARGET!r}, {{}}, name='c'); print(c.pid, flush=True); "
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code + "import time; time.sleep(600)"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.path.dirname(__file__)},
    )
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        assert is_there(pid)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert wait_gone(pid)


def test_the_environment_of_a_child_can_be_changed() -> None:
    with Child(TARGET, {}, name="c", environment={"OMP_NUM_THREADS": "7"}) as child:
        assert child.call("threads") == "7"
