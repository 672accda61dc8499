# SPDX-License-Identifier: Apache-2.0
"""A warm zygote: a process that has imported NumPy and the kernels once and forks one worker for each task.

A fork costs milliseconds where a fresh interpreter with NumPy costs 150. The zygote runs no kernel itself (no BLAS
threads, no CUDA context exist when it forks), has a cleaned environment, stands in a box where the machine has one, and
ends when its parent's end of the control socket closes, however that happens; workers die with it.

The parent's side is synchronous and quick; an event loop calls it through a thread.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from qubix_kernels.box import cgroup, machine, rules
from qubix_kernels.box.machine import Isolation
from qubix_kernels.box.rules import Gpu, Limits
from qubix_kernels.wire import Reply, Request, Setup, hear_processes, receive, send

_START_S: Final = 60.0
_REPLY_S: Final = 20.0
_ENDS_KEPT: Final = 256
"""Workers whose control group is gone and whose end may still be asked for."""
_THREAD_VARIABLES: Final = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_NO_CARD: Final = {"CUDA_VISIBLE_DEVICES": ""}
SERVE: Final = "qubix_kernels.tasks:serve"
NO_LIMITS: Final = Limits()


class ZygoteDied(Exception):
    """The zygote is gone; start another one."""


class Worker(msgspec.Struct, frozen=True):
    """A forked worker: send it one task on `sock`, read events until it closes. The caller closes `sock`.

    `pid` is this machine's; `number` the zygote's.
    """

    pid: int
    number: int
    sock: socket.socket


class Zygote:
    """The parent's handle. Its methods may be called from several threads."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket, *, boxed: bool) -> None:
        self._process, self._control, self._boxed = process, control, boxed
        self._lock = threading.Lock()
        self._pid = process.pid
        self._groups: dict[int, cgroup.Group] = {}

    @classmethod
    def start(
        cls,
        *,
        folders: Sequence[Path] = (),
        threads: int = 1,
        environment: dict[str, str] | None = None,
        isolation: Isolation | None = None,
        gpu: Gpu | None = None,
        readable: Sequence[Path] = (),
        serve: str = SERVE,
    ) -> "Zygote":
        """Start it and wait until it is warm. Workers see `environment` and the thread counts, nothing else.

        Scratch folders must lie in `folders`; `gpu` is the only card its workers may use. By default it stands in a box
        where this machine can make one. `readable` (shown as well) and `serve` are for tests.

        Raises `ZygoteDied`, or OSError when no process can be made; either way nothing is left behind.
        """
        chosen = isolation or machine.found_here()
        view = rules.View(
            readable=rules.without_nested([*machine.readable(), *(str(path.resolve()) for path in readable)]),
            folders=rules.without_nested([str(path.resolve()) for path in folders]),
            gpu=gpu,
        )
        variables = (
            dict.fromkeys(_THREAD_VARIABLES, str(threads)) | (gpu.variables if gpu else _NO_CARD) | (environment or {})
        )
        with contextlib.ExitStack() as undo:
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            hear_processes(ours)
            with theirs:
                process = _spawn(chosen, view, variables, theirs.fileno())
            zygote = cls(process, ours, boxed=chosen.kind == "box")
            undo.callback(zygote.close)
            ours.settimeout(_START_S)
            zygote._meet(Setup(view=view, boxed=chosen.kind == "box", serve=serve))
            ours.settimeout(_REPLY_S)
            undo.pop_all()
        return zygote

    @property
    def pid(self) -> int:
        return self._pid

    def fork(self, *, scratch: Path, out: Path | None = None, limits: Limits = NO_LIMITS) -> Worker:
        """A new worker with its working folder in `scratch`, which it may read; it may write `out`, in it or the same.

        Raises `ZygoteDied`.
        """
        ours, theirs = socket.socketpair()
        where = str(out.resolve()) if out is not None else ""
        request = Request(op="fork", scratch=str(scratch.resolve()), out=where, limits=limits)
        try:
            reply, pid = self._call(request, theirs.fileno())
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        worker = Worker(pid if self._boxed and pid else reply.number, reply.number, ours)
        self._confine(worker, limits)
        return worker

    def _confine(self, worker: Worker, limits: Limits) -> None:
        """Into a control group where there is one: it has not read its task yet, and so does nothing."""
        parent = cgroup.parent()
        if parent is None:
            return
        with self._lock, contextlib.suppress(OSError):  # it may have ended already
            removed = [number for number, group in self._groups.items() if group.remove()]
            for number in removed[:-_ENDS_KEPT]:
                del self._groups[number]
            group = self._groups[worker.number] = parent.make(limits)
            group.add(worker.pid)

    def kill(self, worker: Worker) -> None:
        """SIGKILL; nothing when it has ended already (a reused pid is never hit)."""
        self._call(Request(op="kill", number=worker.number))

    def end_of(self, worker: Worker) -> Reply:
        """How it ended: exit status, and the limit that it was ended for; status None while it runs."""
        end = self._call(Request(op="status", number=worker.number))[0]
        if end.status is None:
            return end
        with self._lock:
            group = self._groups.get(worker.number)
            if group is not None:
                group.remove()
        if end.status == -signal.SIGKILL and not end.cause and group is not None and group.out_of_memory:
            return msgspec.structs.replace(end, cause="memory")
        return end

    def status(self, worker: Worker) -> int | None:
        return self.end_of(worker).status

    def close(self) -> None:
        """End it and every worker; waits until they are gone."""
        self._control.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)  # everything in a box dies with its process 1
            self._process.kill()
            self._process.wait()
        for group in self._groups.values():
            group.remove()

    def _meet(self, setup: Setup) -> None:
        try:
            send(self._control, setup)
        except OSError as error:
            raise ZygoteDied(f"the worker zygote does not start: {error}") from error
        _, pid = self._reply()
        self._pid = pid or self._process.pid

    def _call(self, request: Request, *fds: int) -> tuple[Reply, int]:
        with self._lock:
            try:
                send(self._control, request, fds=fds)
            except OSError as error:
                raise ZygoteDied(f"the worker zygote is gone: {error}") from error
            reply, pid = self._reply()
        if reply.error:
            raise ZygoteDied(f"the worker zygote refused: {reply.error}")
        return reply, pid

    def _reply(self) -> tuple[Reply, int]:
        try:
            heard = receive(self._control, Reply)
        except OSError as error:
            # It ends with its socket: an answer that comes late must not be taken for the next request's.
            with contextlib.suppress(OSError):
                self._control.shutdown(socket.SHUT_RDWR)
            raise ZygoteDied(f"the worker zygote does not answer: {error}") from error
        if heard is None:
            raise ZygoteDied("the worker zygote closed its socket")
        return heard


def _spawn(isolation: Isolation, view: rules.View, variables: dict[str, str], fd: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "qubix_kernels.nursery", str(fd)]
    if isolation.kind == "box":
        outside = rules.bwrap_words(isolation.bwrap, view, variables, machine.links_of_root())
        return subprocess.Popen([*outside, *command], pass_fds=[fd], stdin=subprocess.DEVNULL, env={}, cwd="/")
    return subprocess.Popen(command, pass_fds=[fd], stdin=subprocess.DEVNULL, env=variables, cwd="/")
