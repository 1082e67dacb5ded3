"""A slot: one back-end session, opened when first needed, replaced by a larger one when needed, with its thread."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from rim_edge.backends.base import Backend, BackendSession

_ROUND = 256  # cells come in steps of this many, so that a slightly larger need does not open a new session


class Slot:
    """One session of ``backend`` and one worker thread; used by one call at a time."""

    def __init__(self, backend: Backend, name: str) -> None:
        self._backend = backend
        self._session: BackendSession | None = None
        self._size = (0, 0, False)
        self.pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self.lock = threading.Lock()

    def session(self, n_cells: int, n_lanes: int = 1) -> BackendSession:
        """The session, opened anew where it is too small for ``n_cells`` tokens in all and ``n_lanes`` questions."""
        blocks = self._backend.spec is not None and not self._backend.coupled_reason
        cells = -(-n_cells // _ROUND) * _ROUND
        if self._session is None or cells > self._size[0] or n_lanes > self._size[1]:
            size = (max(cells, self._size[0]), max(n_lanes, self._size[1]), blocks)
            self.drop()
            self._session = self._backend.open(size[0], size[1], blocks=blocks)
            self._size = size
        return self._session

    def drop(self) -> None:
        """Close the session and free its memory; the next use opens another one."""
        if self._session is not None:
            self._session.close()
        self._session, self._size = None, (0, 0, False)

    def close(self) -> None:
        """Close the session and end the worker thread."""
        self.drop()
        self.pool.shutdown(wait=False)
