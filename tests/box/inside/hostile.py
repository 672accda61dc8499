# SPDX-License-Identifier: Apache-2.0
"""What a malicious job would do: served by a test's zygote instead of tasks, so that it runs where jobs run.

Each attempt returns what it got, or raises what stopped it. Honest tasks are served too: the next one must work.
"""

import contextlib
import ctypes
import mmap
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pyseccomp

from qubix_kernels import tasks
from qubix_kernels.box.wipe import overwrite

libc = ctypes.CDLL(None, use_errno=True)


class Probe(tasks.Frame, frozen=True, kw_only=True, tag="probe"):
    name: str
    words: tuple[Any, ...] = ()


class Outcome(tasks.Frame, frozen=True, kw_only=True, tag="outcome"):
    """`error` is an errno, or 0; `said` what was returned or raised."""

    error: int
    said: Any


def serve(sock: socket.socket) -> None:
    body = tasks._receive(sock)
    wanted = msgspec.msgpack.decode(body, type=Probe | tasks.RunTask | tasks.VerifyTask | tasks.WipeTask)
    if isinstance(wanted, Probe):
        sock.sendall(tasks.encode_frame(attempt(wanted, sock)))
    elif isinstance(wanted, tasks.WipeTask):
        sock.sendall(tasks.encode_frame(wipe()))
    elif isinstance(wanted, tasks.RunTask) and wanted.kernel in ("leave", "look", "stay"):
        sock.sendall(tasks.encode_frame(tasks.TaskFailed(code="said", detail=on_card(wanted))))
    else:
        for event in tasks.run(wanted) if isinstance(wanted, tasks.RunTask) else (tasks.verify(wanted),):
            sock.sendall(tasks.encode_frame(event))


def attempt(probe: Probe, sock: socket.socket) -> Outcome:
    try:
        words = (*probe.words, sock) if probe.name == "flood" else probe.words
        return Outcome(error=0, said=globals()[probe.name](*words))
    except OSError as error:
        return Outcome(error=error.errno or -1, said=str(error))
    except (MemoryError, RuntimeError) as error:
        return Outcome(error=-1, said=type(error).__name__)


def system_call(name: str, *arguments: int) -> int:
    number = pyseccomp.resolve_syscall(pyseccomp.system_arch(), name)
    assert number >= 0, name
    return checked(libc.syscall(ctypes.c_long(number), *(ctypes.c_long(word) for word in arguments)))


def system_calls(names: list[str]) -> dict[str, int]:
    """The errno that each is refused with; -1 for one that was not."""
    errors = {}
    for name in names:
        try:
            system_call(name, 0, 0, 0, 0, 0)
            errors[name] = -1
        except OSError as error:
            errors[name] = error.errno or -1
    return errors


def checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


# A card whose memory is a file, which the driver hands out as the last process left it -----------------------------


class FileMemory:
    """A `wipe.Memory`: pages of a file, the first few of which some other process holds."""

    PAGE, HELD = 4096, 3

    def __init__(self, path: str) -> None:
        self.pages = memoryview(mmap.mmap(os.open(path, os.O_RDWR), 0))
        self.next = self.HELD * self.PAGE

    def free_bytes(self) -> int:
        return len(self.pages) - self.next

    def take(self, size: int) -> int:
        if size > self.free_bytes():
            raise MemoryError
        at, self.next = self.next, self.next + size
        return at

    def clear(self, block: int, size: int) -> None:
        self.pages[block : block + size] = bytes(size)

    def clear_on_chip(self) -> None:
        self.pages[: self.PAGE] = bytes(self.PAGE)


def wipe() -> tasks.Frame:
    path = os.environ["CARD"]
    if read(path).startswith("stuck"):
        return tasks.TaskFailed(code="kernel_error", detail="CUDA_ERROR_ILLEGAL_ADDRESS")
    done = overwrite(FileMemory(path))
    assert done.whole
    return tasks.WipeDone(free_bytes=done.free_bytes, cleared_bytes=done.cleared_bytes)


def on_card(task: tasks.RunTask) -> str:
    """Leaves a canary all over the card, or looks for one, or stays until it is ended."""
    memory = FileMemory(os.environ["CARD"])
    if task.kernel == "leave":
        for at in range(0, len(memory.pages) - 6, 1000):
            memory.pages[at : at + 6] = b"canary"
    if task.kernel == "stay":
        sleep_for_ever()
    return str(bytes(memory.pages).count(b"canary"))


# Files --------------------------------------------------------------------------------------------------------------


def read(path: str) -> str:
    return Path(path).read_bytes()[:100].decode(errors="replace")


def write(path: str) -> int:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    return os.write(fd, b"x")


def write_anew(path: str) -> int:
    """As CUDA's library opens the files with its threads' names."""
    return os.write(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), b"x")


def write_existing(path: str) -> int:
    return os.write(os.open(path, os.O_WRONLY), b"1")


def entries(path: str) -> list[str]:
    return sorted(os.listdir(path))


def remove(path: str) -> None:
    os.unlink(path)


def move(path: str, to: str) -> None:
    os.rename(path, to)


def make_folder(path: str) -> None:
    os.mkdir(path)


def make_link(path: str, to: str) -> None:
    os.symlink(to, path)


def make_hard_link(path: str, to: str) -> None:
    os.link(to, path)


def make_node(path: str, kind: int, device: int = 0) -> None:
    os.mknod(path, kind | 0o600, device)


def make_unreadable(path: str) -> None:
    os.chmod(path, 0)


# Sockets, signals, processes ----------------------------------------------------------------------------------------


def open_socket(family: int, kind: int) -> int:
    return socket.socket(family, kind).fileno()


def pair() -> int:
    return socket.socketpair()[0].fileno()


def send_from_a_pair(path: str) -> int:
    """What a pair of datagram sockets may do more: each still sends to any other's address."""
    one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    return one.sendto(b"x", path)


def send_signal(pid: int, number: int) -> None:
    os.kill(pid, number)


def fork() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    return pid


def fork_for_ever() -> int:
    made = 0
    while True:
        made += bool(os.fork())


def execute() -> None:
    os.execv(sys.executable, [sys.executable, "-c", "pass"])


def terminal_input(request: int) -> int:
    """Also with bits that the kernel ignores set above the request."""
    return checked(
        libc.syscall(pyseccomp.resolve_syscall(pyseccomp.system_arch(), "ioctl"), 0, ctypes.c_ulong(request), b"x")
    )


def new_thread_flags(flags: int) -> int:
    return system_call("clone", flags, 0, 0, 0, 0)


def become(uid: int) -> None:
    os.setresuid(uid, uid, uid)


# Too much of everything ---------------------------------------------------------------------------------------------


def eat_memory() -> int:
    kept = []
    while True:
        kept.append(bytearray(16 << 20))


def eat_mappings() -> int:
    kept = []
    while True:
        kept.append(mmap.mmap(-1, 64 << 20))
        kept[-1].write(b"x" * (64 << 20))


def fill(folder: str, size: int) -> int:
    block = bytes(1 << 20)
    for number in range(1 << 20):
        with open(f"{folder}/{number}", "wb") as file:
            for _ in range(size >> 20):
                file.write(block)
    return -1


def many_files(folder: str) -> int:
    for number in range(1 << 20):
        os.close(os.open(f"{folder}/{number}", os.O_CREAT | os.O_WRONLY, 0o600))
    return -1


def many_descriptors() -> int:
    while True:
        os.dup(0)


def many_threads() -> int:
    threading.stack_size(32 << 10)
    for _ in range(1 << 20):
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    return -1


def deaf_and_busy() -> None:
    """No signal that can be blocked or ignored gets through."""
    for number in signal.valid_signals():
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        pass


def sleep_for_ever() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        time.sleep(600)


def fall() -> None:
    os.abort()


def flood(sock: socket.socket) -> None:
    """A frame that claims more than any frame may have, and then bytes without end."""
    with contextlib.suppress(OSError):
        sock.sendall(b"\xff\xff\xff\xff")
        while True:
            sock.sendall(bytes(1 << 20))


# What there is to see -----------------------------------------------------------------------------------------------


def descriptors() -> dict[str, str]:
    """The list itself holds one while it is made."""
    held = {
        fd: os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    }
    return {fd: what for fd, what in held.items() if not what.startswith("/proc/")}


def variables() -> list[str]:
    return sorted(os.environ)


def identity() -> dict[str, Any]:
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    known = ("CapPrm", "CapEff", "CapInh", "CapAmb", "NoNewPrivs", "Seccomp")
    return {"pid": os.getpid(), "parent": os.getppid(), "uid": os.getuid()} | {word: status[word] for word in known}
