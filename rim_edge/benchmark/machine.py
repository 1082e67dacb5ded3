"""What a measurement ran on: processor, cores, caches, memory, versions; and the memory that a process takes."""

from __future__ import annotations

import glob
import os
import platform
import re
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rim_edge import _native, memory

_PACKAGES = ("rim-edge", "llama-cpp-python", "numpy")


def describe() -> dict[str, Any]:
    """The machine and the libraries, as JSON values; None for what the system does not say."""
    return {
        "cpu": cpu_name(),
        "architecture": platform.machine(),
        "physical_cores": _native.physical_cores(),
        "logical_cores": os.cpu_count(),
        "last_cache_bytes": last_cache_bytes(),
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "memory_bytes": memory.physical_bytes(),
        "load_average": list(os.getloadavg()),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def one_line(facts: dict[str, Any]) -> str:
    """``AMD EPYC, 2 cores, 24 GiB, llama-cpp-python 0.3.36`` out of :func:`describe`."""
    parts = [facts["cpu"] or facts["architecture"], f"{facts['physical_cores']} cores"]
    if facts["memory_bytes"]:
        parts.append(f"{facts['memory_bytes'] / 2**30:.0f} GiB")
    if facts["governor"]:
        parts.append(f"governor {facts['governor']}")
    parts.append(f"llama-cpp-python {facts['packages']['llama-cpp-python']}")
    return ", ".join(parts)


def cpu_name() -> str | None:
    """The processor's name as the system gives it."""
    if sys.platform == "darwin":
        try:
            found = subprocess.run(
                ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, timeout=5, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return found.stdout.strip() or None
    text = _text("/proc/cpuinfo") or ""
    names = dict(re.findall(r"^(model name|Model|Hardware|cpu family|model)\s*:\s*(.+)$", text, re.MULTILINE))
    name = names.get("model name") or names.get("Model") or names.get("Hardware")
    if name and "cpu family" in names and not re.search(r"\d{3}", name):  # a name that leaves the generation open
        name += f" (family {names['cpu family']}, model {names.get('model', '?')})"
    return name


def last_cache_bytes() -> int | None:
    """Size of the largest cache of the first core."""
    sizes = []
    for path in glob.glob("/sys/devices/system/cpu/cpu0/cache/index*/size"):
        found = re.fullmatch(r"(\d+)([KM]?)", _text(path) or "")
        if found:
            sizes.append(int(found[1]) << {"": 0, "K": 10, "M": 20}[found[2]])
    return max(sizes, default=None)


def peak_rss_bytes() -> int:
    """Most memory that this process has held so far, pages of mapped files included."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", _text("/proc/self/status") or "", re.MULTILINE)
    if found:
        return int(found[1]) << 10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
