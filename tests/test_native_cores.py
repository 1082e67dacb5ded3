"""The default number of threads."""

from __future__ import annotations

import os
import subprocess
import sys

from native_session import model, session

from rim_edge import _native


def test_threads_default_to_the_cores_that_the_process_may_use() -> None:
    assert 1 <= _native.physical_cores() <= (os.cpu_count() or 1)
    assert session(model(), n_threads=0).n_threads == _native.physical_cores()
    assert session(model(), n_threads=3).n_threads == 3


def test_cpu_affinity_is_respected() -> None:
    if not hasattr(os, "sched_setaffinity"):
        return
    one = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, {{{one}}}); from rim_edge import _native; print(_native.physical_cores())"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "1"
    )
