"""Settings of all tests."""

import sys
from pathlib import Path

from hypothesis import settings

# train/ and convert/ are tested from the checkout; last, so that an installed rim_edge comes before the checkout's
sys.path.append(str(Path(__file__).resolve().parents[1]))

settings.register_profile("any-machine", deadline=None)  # speed lives in bench/
settings.load_profile("any-machine")
