# SPDX-License-Identifier: Apache-2.0
"""The test's end of the barriers: arm one, wait until a process stands at it, and let it go (or kill it there).

Every process started with `QUBIX_BARRIERS` asks here at each barrier; what is not armed goes on at once.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from qubix_protocol.barriers import Barrier

HELD_S = 120.0
_CREDENTIALS = struct.Struct("3i")


class Hold:
    """One armed barrier: the first process that reaches it stands there."""

    def __init__(self, barrier: Barrier, pid: int | None, skip: int) -> None:
        self.barrier, self.pid, self._skip = barrier, pid, skip
        self._reached = threading.Event()
        self._connection: socket.socket | None = None

    def wants(self, barrier: Barrier, pid: int) -> bool:
        if barrier is not self.barrier or self.pid not in (None, pid) or self.reached:
            return False
        self._skip -= 1
        return self._skip < 0

    @property
    def reached(self) -> bool:
        return self._connection is not None

    def take(self, connection: socket.socket, pid: int) -> None:
        self._connection, self.pid = connection, pid
        self._reached.set()

    def wait(self) -> int:
        """The process that stands here."""
        assert self._reached.wait(HELD_S), f"nobody came to {self.barrier}"
        assert self.pid is not None
        return self.pid

    def release(self) -> None:
        if self._connection is not None:
            _let_go(self._connection)


class Barriers:
    """`with Barriers(path)`: serves from a thread; whoever still stands anywhere at the end is let go."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._holds: list[Hold] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._thread = threading.Thread(target=self._serve, name="barriers", daemon=True)

    def __enter__(self) -> Self:
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for hold in self._holds:
            hold.release()

    @contextlib.contextmanager
    def armed(self, barrier: Barrier, pid: int | None = None, *, skip: int = 0) -> Iterator[Hold]:
        """`skip`: so many arrivals pass first. Leaving the block lets go."""
        hold = Hold(barrier, pid, skip)
        with self._lock:
            self._holds.append(hold)
        try:
            yield hold
        finally:
            with self._lock:
                self._holds.remove(hold)
            hold.release()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        """A process says one short line at once; one that was killed in between says nothing."""
        name = connection.makefile("rb").readline().decode().strip()
        if not name:
            connection.close()
            return
        packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid = _CREDENTIALS.unpack(packed)[0]
        with self._lock:
            hold = next((one for one in self._holds if one.wants(Barrier(name), pid)), None)
            if hold is not None:
                hold.take(connection, pid)
        if hold is None:
            _let_go(connection)


def _let_go(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(b".")
    connection.close()
