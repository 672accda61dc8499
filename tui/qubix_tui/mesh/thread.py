# SPDX-License-Identifier: Apache-2.0
"""The mesh beside the terminal: trio in a thread of its own, and the only module that knows trio and the mesh.

The terminal reads `offers()` and `peers()`, which the watch allows from any thread, and sees by `version` whether
something changed. `stop` cancels the whole of it from outside by the thread's trio token, and waits for its end.
"""

import contextlib
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import trio

from qubix.errors import BadUsage, QubixError
from qubix_mesh.errors import BadAddress, MeshError
from qubix_tui.mesh.heard import HeardOffer, Known, OpenWatch, Peer, Watching

STOP_S: Final = 10.0


def real_watch(known: Known, remembered: Path) -> Watching:
    """libp2p is imported by it, in the thread: it takes a second."""
    from qubix_mesh.watch import Watch

    return Watch(
        network=known.network,
        coordinator=bytes.fromhex(known.coordinator_key),
        bootstrap=known.bootstrap,
        remembered=remembered,
        regions=known.regions,
    )


class MeshThread:
    """Listens from `start` to `stop`. `error` says why it does not listen any more."""

    def __init__(self, known: Known, open_watch: OpenWatch) -> None:
        self.known: Final = known
        self.version = 0
        self.error: QubixError | None = None
        self._open_watch = open_watch
        self._watch: Watching | None = None
        self._scope: trio.CancelScope | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mesh", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Blocks until the thread has ended. Asking twice is fine."""
        if not self._thread.is_alive():
            return
        self._begun.wait(STOP_S)
        if self._token is not None and self._scope is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._scope.cancel)
        self._thread.join(STOP_S)

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def offers(self) -> Sequence[HeardOffer]:
        return () if self._watch is None else self._watch.offers()

    def peers(self) -> Sequence[Peer]:
        return () if self._watch is None else self._watch.peers()

    def _run(self) -> None:
        try:
            trio.run(self._listen)
        except Exception as problem:  # noqa: BLE001  whatever ends it is told on the screen
            self.error = _told(problem)
        finally:
            self.version += 1
            self._begun.set()

    async def _listen(self) -> None:
        with trio.CancelScope() as scope:
            self._scope, self._token = scope, trio.lowlevel.current_trio_token()
            self._begun.set()
            watch = self._watch = self._open_watch(self.known)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(self._count, watch))
                await watch.run()

    async def _count(self, watch: Watching) -> None:
        while True:
            await watch.changed()
            self.version += 1


def _told(problem: Exception) -> QubixError:
    """The first cause, with what to do about it."""
    first: BaseException = problem
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    if isinstance(first, BadAddress):
        return BadUsage("QUBIX_BOOTSTRAP", f"the mesh cannot be dialled: {first}", "Correct QUBIX_BOOTSTRAP.")
    if isinstance(first, ImportError):
        return BadUsage("mesh", f"the mesh cannot be listened to: {first}", "Run: pip install 'qubix[tui]'")
    kind = "" if isinstance(first, (MeshError, OSError)) else f"{type(first).__name__}: "
    return BadUsage("mesh", f"the mesh ended ({kind}{first})", "Press u to listen again; if it stays so, report it.")
