"""Settings of all tests."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# train/ and convert/ are tested from the checkout; last, so that an installed rim_edge comes before the checkout's
sys.path.append(str(Path(__file__).resolve().parents[1]))

settings.register_profile("any-machine", deadline=None)  # speed lives in bench/
settings.load_profile("any-machine")


@pytest.fixture(scope="session", autouse=True)
def elsewhere() -> Iterator[None]:
    """Run outside of the checkout's root: ``python -c`` puts the working folder first, and the rim_edge there has no
    extension module where a wheel is installed."""
    start = Path.cwd()
    os.chdir(Path(__file__).parent)
    yield
    os.chdir(start)
