"""The process in which libllama's quantizer runs; ``quantizer.py`` starts it as a program.

The quantizer cannot be stopped and ends its process on some broken weights: here that harms nobody. The job comes on
standard input, as a pickle of the arguments of ``_native.QuantizeOptions`` and two paths; what is left of the input
tells when the parent is gone. Each line on standard output is a JSON object: ``{"tensor": name}`` when work on a tensor
begins, then ``{"done": true}`` or ``{"error": [class, message]}``.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
import threading
from typing import Any


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which decides
    job: dict[str, Any] = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from rim_edge import _native
    from rim_edge.errors import RimError

    try:
        options = _native.QuantizeOptions(**job["options"])
        _native.quantize(job["source"], job["target"], options, lambda name: _say({"tensor": name}))
    except RimError as error:
        _say({"error": [type(error).__name__, str(error)]})
    else:
        _say({"done": True})


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def _say(line: dict[str, Any]) -> None:
    os.write(1, json.dumps(line).encode() + b"\n")


if __name__ == "__main__":
    main()
