# SPDX-License-Identifier: Apache-2.0
"""A warm zygote: a process that has imported NumPy and the kernels once and forks one worker for each task.

A fork costs 2–3 ms where a fresh interpreter with NumPy costs 150. The zygote runs no kernel itself (no BLAS threads,
no CUDA context exist when it forks), has a cleaned environment, and ends when its parent's end of the control socket
closes, however that happens; workers die with it.

The parent's side is synchronous and quick; an event loop calls it through a thread.
"""

import contextlib
import ctypes
import gc
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any, Final

import msgspec

_HEAD: Final = struct.Struct(">I")
_PR_SET_PDEATHSIG: Final = 1
_STATUSES_MAX: Final = 4096
_START_S: Final = 60.0
_REPLY_S: Final = 20.0
_THREAD_VARIABLES: Final = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class ZygoteDied(Exception):
    """The zygote is gone; start another one."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """`op`: fork (one file descriptor comes with it), kill, or status."""

    op: str
    pid: int = 0
    memory_bytes: int = 0
    cpu_s: int = 0
    scratch: str = ""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """`status` as `os.waitstatus_to_exitcode` gives it (negative: ended by that signal); None while running."""

    pid: int = 0
    status: int | None = None
    error: str = ""


class Worker(msgspec.Struct, frozen=True):
    """A forked worker: send it one task on `sock`, read events until it closes. The caller closes `sock`."""

    pid: int
    sock: socket.socket


class Zygote:
    """The parent's handle. Its methods may be called from several threads."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self._process, self._control = process, control
        self._lock = threading.Lock()

    @classmethod
    def start(cls, *, threads: int = 1, environment: dict[str, str] | None = None) -> "Zygote":
        """Start it and wait until it is warm. Workers see `environment` and the thread counts, nothing else.

        Raises `ZygoteDied`, or OSError when no process can be made; either way nothing is left behind.
        """
        env = dict.fromkeys(_THREAD_VARIABLES, str(threads)) | (environment or {})
        with contextlib.ExitStack() as undo:
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            with theirs:
                command = [sys.executable, "-m", "qubix_kernels.zygote", str(theirs.fileno())]
                process = subprocess.Popen(
                    command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=env, cwd="/"
                )
            zygote = cls(process, ours)
            undo.callback(zygote.close)
            ours.settimeout(_START_S)
            zygote._reply()
            ours.settimeout(_REPLY_S)
            undo.pop_all()
        return zygote

    @property
    def pid(self) -> int:
        return self._process.pid

    def fork(self, *, scratch: Path, memory_bytes: int = 0, cpu_s: int = 0) -> Worker:
        """A new worker with its working folder in `scratch`; zero means no limit. Raises `ZygoteDied`."""
        ours, theirs = socket.socketpair()
        request = Request(op="fork", memory_bytes=memory_bytes, cpu_s=cpu_s, scratch=str(scratch))
        try:
            reply = self._call(request, theirs.fileno())
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return Worker(reply.pid, ours)

    def kill(self, pid: int) -> None:
        """SIGKILL to a worker; nothing when it has ended already (a reused pid is never hit)."""
        self._call(Request(op="kill", pid=pid))

    def status(self, pid: int) -> int | None:
        """Exit code of a worker, negative for a signal; None while it runs."""
        return self._call(Request(op="status", pid=pid)).status

    def close(self) -> None:
        """End it and every worker; waits until they are gone."""
        self._control.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _call(self, request: Request, *fds: int) -> Reply:
        with self._lock:
            try:
                _send(self._control, request, *fds)
            except OSError as error:
                raise ZygoteDied(f"the worker zygote is gone: {error}") from error
            reply = self._reply()
        if reply.error:
            raise ZygoteDied(f"the worker zygote refused: {reply.error}")
        return reply

    def _reply(self) -> Reply:
        try:
            body = _read(self._control)
        except OSError as error:
            # It ends with its socket: an answer that comes late must not be taken for the next request's.
            with contextlib.suppress(OSError):
                self._control.shutdown(socket.SHUT_RDWR)
            raise ZygoteDied(f"the worker zygote does not answer: {error}") from error
        if body is None:
            raise ZygoteDied("the worker zygote closed its socket")
        return msgspec.msgpack.decode(body, type=Reply)


def _send(sock: socket.socket, value: msgspec.Struct, *fds: int) -> None:
    body = msgspec.msgpack.encode(value)
    socket.send_fds(sock, [_HEAD.pack(len(body)) + body], list(fds))


def _read(sock: socket.socket) -> bytes | None:
    head = _exactly(sock, _HEAD.size)
    return _exactly(sock, _HEAD.unpack(head)[0]) if head else None


def _exactly(sock: socket.socket, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            return None
        data += more
    return data


# The zygote's own side ----------------------------------------------------------------------------------------------


def main(fd: int) -> None:
    gc.disable()  # a collection would leave holes in pages that all workers share; each worker enables it again
    control = socket.socket(fileno=fd)
    from qubix_kernels import get, names, tasks

    for name in names():
        get(name)
    gc.freeze()  # the collector of a worker must not touch them either
    _send(control, Reply(pid=os.getpid()))
    _Nursery(control, tasks.serve).loop()


class _Nursery:
    """Forks, reaps and kills workers; remembers how each ended."""

    def __init__(self, control: socket.socket, serve: Any) -> None:
        self._control, self._serve = control, serve
        self._alive: set[int] = set()
        self._ended: OrderedDict[int, int] = OrderedDict()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        signal.set_wakeup_fd(self._wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def loop(self) -> None:
        try:
            while True:
                watched: list[socket.socket | int] = [self._control, self._wake_read]
                ready, _, _ = select.select(watched, [], [])
                if self._wake_read in ready:
                    os.read(self._wake_read, 4096)
                    self._reap()
                if self._control in ready and not self._answer():
                    return
        finally:
            for pid in self._alive:
                os.kill(pid, signal.SIGKILL)
            for pid in self._alive:
                os.waitpid(pid, 0)

    def _answer(self) -> bool:
        head, fds, _, _ = socket.recv_fds(self._control, _HEAD.size, 1)
        if not head:
            return False
        body = _exactly(self._control, _HEAD.unpack(head)[0])
        if body is None:
            return False
        request = msgspec.msgpack.decode(body, type=Request)
        _send(self._control, self._do(request, fds))
        return True

    def _do(self, request: Request, fds: list[int]) -> Reply:
        self._reap()
        if request.op == "fork" and len(fds) == 1:
            return self._fork(request, fds[0])
        if request.op == "kill":
            if request.pid in self._alive:
                os.kill(request.pid, signal.SIGKILL)
            return Reply(pid=request.pid)
        if request.op == "status":
            return Reply(pid=request.pid, status=self._ended.get(request.pid))
        return Reply(error=f"unknown request {request.op!r}")

    def _fork(self, request: Request, fd: int) -> Reply:
        zygote = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            os.close(fd)
            return Reply(error=f"no process can be made: {error}")
        if pid == 0:
            self._become_worker(request, fd, zygote)
        os.close(fd)
        self._alive.add(pid)
        return Reply(pid=pid)

    def _become_worker(self, request: Request, fd: int, zygote: int) -> None:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _die_with_parent(zygote)
            gc.enable()
            self._control.close()
            os.close(self._wake_read)
            os.close(self._wake_write)
            _limit(request)
            os.chdir(request.scratch)
            with socket.socket(fileno=fd) as sock:
                self._serve(sock)
            code = 0
        finally:
            os._exit(code)

    def _reap(self) -> None:
        while self._alive:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self._alive.discard(pid)
            self._ended[pid] = os.waitstatus_to_exitcode(status)
            while len(self._ended) > _STATUSES_MAX:
                self._ended.popitem(last=False)


def _limit(request: Request) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if request.memory_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (request.memory_bytes, request.memory_bytes))
    if request.cpu_s:
        resource.setrlimit(resource.RLIMIT_CPU, (request.cpu_s, request.cpu_s + 1))


def _die_with_parent(parent: int) -> None:
    """Linux: SIGKILL when the parent ends, however it ends. (For the zygote itself this would be wrong: the signal
    comes when the *thread* that started it ends.)"""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise ZygoteDied("it ended before the worker began")


if __name__ == "__main__":
    main(int(sys.argv[1]))
