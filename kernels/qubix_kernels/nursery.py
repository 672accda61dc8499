# SPDX-License-Identifier: Apache-2.0
"""The zygote's own side, `python -m qubix_kernels.nursery FD`: forks workers, puts each into its layer, watches, reaps.

It runs no kernel itself and hears its parent alone. In a box it is process 1: when it ends, everything inside ends.
"""

import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from qubix_kernels.box import layer, linux, seccomp, watch
from qubix_kernels.tasks import TaskFailed, encode_frame
from qubix_kernels.wire import Reply, Request, Setup, receive, receive_with_fds, send

_STATUSES_MAX: Final = 4096
Serve = Callable[[socket.socket], None]


def main(fd: int) -> None:
    gc.disable()  # a collection would leave holes in pages that all workers share; each worker enables it again
    control = socket.socket(fileno=fd)
    first = receive(control, Setup)
    if first is None:
        return
    setup, _ = first
    if setup.boxed:
        linux.die_with_parent(signal.SIGKILL)  # of bubblewrap, which has one thread
    from qubix_kernels import get, names

    for name in names():
        get(name)
    tools = layer.Tools(setup.view, boxed=setup.boxed, program=_program(setup))
    nursery = _Nursery(control, tools, _serve_of(setup.serve))
    gc.freeze()  # the collector of a worker must not touch them either
    send(control, Reply())
    nursery.loop()


def _program(setup: Setup) -> bytes:
    """A box has its filter or does not start."""
    gpu = setup.view.gpu
    cuda = gpu is not None and gpu.cuda
    graphics = gpu is not None and not cuda
    if setup.boxed:
        return seccomp.program("cuda" if cuda else "cpu", graphics=graphics)
    try:
        limited: seccomp.Profile = "limited-cuda" if cuda else "limited"
        return seccomp.program(limited, graphics=graphics) if sys.platform == "linux" else b""
    except (ImportError, RuntimeError, OSError):
        return b""


def _serve_of(name: str) -> Serve:
    module, _, function = name.partition(":")
    serve: Serve = getattr(importlib.import_module(module), function)
    return serve


class _Nursery:
    """Forks, watches, kills and reaps workers; remembers how each ended."""

    def __init__(self, control: socket.socket, tools: layer.Tools, serve: Serve) -> None:
        self._control, self._tools, self._serve = control, tools, serve
        self._alive: dict[int, watch.Watched] = {}
        self._ended: OrderedDict[int, Reply] = OrderedDict()
        self._look_s = 0.0
        self._own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY) if tools.boxed else -1
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        signal.set_wakeup_fd(self._wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def loop(self) -> None:
        try:
            while True:
                heard: list[socket.socket | int] = [self._control, self._wake_read]
                ready, _, _ = select.select(heard, [], [], watch.PERIOD_S if self._alive else None)
                if self._wake_read in ready:
                    os.read(self._wake_read, 4096)
                self._reap()
                self._look()
                if self._control in ready and not self._answer():
                    return
        except BrokenPipeError:
            return  # the parent left without waiting for an answer
        finally:
            for pid in self._alive:
                os.kill(pid, signal.SIGKILL)
            for pid in self._alive:
                os.waitpid(pid, 0)

    def _look(self) -> None:
        """However busy the parent keeps us."""
        now_s = time.monotonic()
        if now_s < self._look_s:
            return
        self._look_s = now_s + watch.PERIOD_S
        for watched in self._alive.values():
            watched.cause = watched.cause or watched.over()
            if watched.cause:
                os.kill(watched.pid, signal.SIGKILL)

    def _answer(self) -> bool:
        heard = receive_with_fds(self._control, Request, 1)
        if heard is None:
            return False
        request, fds = heard
        self._reap()
        if request.op == "fork" and len(fds) == 1:
            self._fork(request, fds[0])
        elif request.op == "kill":
            if request.number in self._alive:
                os.kill(request.number, signal.SIGKILL)
            send(self._control, Reply(number=request.number))
        elif request.op == "status":
            send(self._control, self._ended.get(request.number, Reply(number=request.number)))
        else:
            send(self._control, Reply(error=f"unknown request {request.op!r}"))
        return True

    def _fork(self, request: Request, fd: int) -> None:
        zygote = os.getpid()
        try:
            pid = self._fork_into_own_pids() if self._tools.boxed else os.fork()
        except OSError as error:
            os.close(fd)
            send(self._control, Reply(error=f"no process can be made: {error}"))
            return
        if pid == 0:
            self._become_worker(request, fd, zygote)
        os.close(fd)
        tmp = "" if self._tools.boxed else layer.tmp_of(self._tools, request.scratch)
        self._alive[pid] = watch.Watched(pid, [path for path in (request.out, tmp) if path], request.limits)
        # Only who has privileges may speak of another process; without namespaces our number is the parent's, too.
        send(self._control, Reply(number=pid), about=pid if self._tools.boxed else 0)

    def _fork_into_own_pids(self) -> int:
        """The child is process 1 of a new namespace: it sees nobody, and whatever it makes dies with it."""
        linux.unshare(linux.CLONE_NEWPID)
        try:
            pid = os.fork()
        except OSError:
            linux.setns(self._own_pids, linux.CLONE_NEWPID)
            raise
        if pid:
            linux.setns(self._own_pids, linux.CLONE_NEWPID)
        return pid

    def _become_worker(self, request: Request, fd: int, zygote: int) -> None:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if not self._tools.boxed:
                _die_with(zygote)
            gc.enable()
            with socket.socket(fileno=fd) as sock:
                if self._enter(request, sock):
                    self._serve(sock)
                    code = 0
        finally:
            os._exit(code)

    def _enter(self, request: Request, sock: socket.socket) -> bool:
        """Into its layer, or the parent hears why not."""
        try:
            layer.enter(
                self._tools, scratch=request.scratch, out=request.out, limits=request.limits, kept=(sock.fileno(),)
            )
        except (OSError, ValueError) as error:
            sock.sendall(encode_frame(TaskFailed(code="box", detail=f"the box cannot be closed: {error}")))
            return False
        return True

    def _reap(self) -> None:
        while self._alive:
            pid, status, used = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return
            watched = self._alive.pop(pid, None)
            if watched is not None:
                code = os.waitstatus_to_exitcode(status)
                cause = watched.ended(code, used.ru_utime + used.ru_stime)
                self._ended[pid] = Reply(number=pid, status=code, cause=cause)
            while len(self._ended) > _STATUSES_MAX:
                self._ended.popitem(last=False)


def _die_with(parent: int) -> None:
    """SIGKILL when the zygote ends, however it ends (in a box its namespace sees to it)."""
    if sys.platform == "linux":
        linux.die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
