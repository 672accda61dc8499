# SPDX-License-Identifier: Apache-2.0
"""A worker's own layer inside the box, put on between the fork and its task. What is taken away never comes back.

Order matters: mounts need the capability, Landlock and seccomp need no_new_privs, and seccomp forbids all the others.
"""

import contextlib
import os
import resource
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Final

from qubix_kernels.box import landlock, linux
from qubix_kernels.box.rules import (
    FILES_MAX,
    LOCKED_BYTES,
    PROCESSES_MAX,
    SHARED_BYTES,
    TMP_BYTES,
    Limits,
    View,
    is_beneath,
)

_COVER: Final = "size=64k,nr_inodes=256,mode=755"
_PROC: Final = ("cpuinfo", "meminfo", "stat", "version", "filesystems", "devices", "sys/vm", "driver/nvidia")
"""What libraries read of /proc beside a process's own folder."""


class Tools:
    """What the zygote prepares once for all its workers."""

    def __init__(self, view: View, *, boxed: bool, program: bytes) -> None:
        self.view, self.boxed, self.program = view, boxed, program
        self.landlock = landlock.version() if sys.platform == "linux" else 0


def enter(tools: Tools, *, scratch: str, out: str, limits: Limits, kept: Sequence[int]) -> None:
    """Become a worker that reads `scratch`, writes `out` (inside it; "" for nothing) and holds the descriptors `kept`.

    Raises OSError; the process must end then, for it is neither inside nor outside.
    """
    if sys.platform == "linux":
        _be_first_to_go()
    if tools.boxed:
        _own_mounts(tools.view, scratch, out)
    else:
        with contextlib.suppress(FileExistsError):
            os.mkdir(tmp_of(tools, scratch), 0o700)
    tempfile.tempdir = tmp_of(tools, scratch)
    os.chdir(scratch)
    _silence(kept)
    _limit(limits)
    if sys.platform == "linux":
        _give_up(tools, scratch, out)


def _give_up(tools: Tools, scratch: str, out: str) -> None:
    """Privileges, files, system calls. A box has all three; a limited child what there is."""
    linux.drop_capabilities()
    linux.no_new_privileges()
    linux.not_dumpable()
    if tools.landlock:
        landlock.restrict(_allowed(tools, scratch, out), tools.landlock)
    if tools.program:
        linux.filter_system_calls(tools.program)


def tmp_of(tools: Tools, scratch: str) -> str:
    """A limited child has no /tmp of its own, and so a folder in its scratch."""
    return "/tmp" if tools.boxed else f"{scratch}/tmp"  # noqa: S108


def _be_first_to_go() -> None:
    """When the machine's memory runs out, the worker ends, and not its zygote or the node."""
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


# Mounts -------------------------------------------------------------------------------------------------------------


def _own_mounts(view: View, scratch: str, out: str) -> None:
    """No other job's scratch, a private /tmp, /dev/shm and /proc; nothing else can be written."""
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWIPC | linux.CLONE_NEWNET)
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    covers = [folder for folder in view.folders if not is_beneath(folder, "/tmp")]  # noqa: S108
    with contextlib.ExitStack() as opened:
        shown = [(path, opened.enter_context(_path(path)), False) for path in _hidden(view, covers)]
        shown += [
            (path, opened.enter_context(_path(path)), path == out) for path in dict.fromkeys((scratch, out)) if path
        ]
        linux.mount("tmpfs", "/tmp", "tmpfs", linux.STRICT, f"size={TMP_BYTES},nr_inodes=16k,mode=700")  # noqa: S108
        linux.mount("tmpfs", "/dev/shm", "tmpfs", linux.STRICT, f"size={SHARED_BYTES},nr_inodes=1k,mode=700")  # noqa: S108
        for folder in covers:
            linux.mount("tmpfs", folder, "tmpfs", linux.STRICT, _COVER)
        for path, fd, writable in shown:
            _show(path, fd, writable=writable)
    for folder in covers:
        if folder not in (scratch, out):
            linux.mount("none", folder, flags=linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY | linux.STRICT)
    _own_proc(named_threads=view.gpu is not None and view.gpu.cuda)


def _own_proc(*, named_threads: bool) -> None:
    """Read-only, but for the names of its own threads: CUDA's library gives them there, or else does not start. What
    else lies beside those names is the process's own, and asks for privileges that it has not."""
    if not named_threads:
        linux.mount("proc", "/proc", "proc", linux.STRICT | linux.MS_RDONLY)
        return
    linux.mount("proc", "/proc", "proc", linux.STRICT)
    own = f"/proc/{os.getpid()}/task"
    linux.mount(own, own, flags=linux.MS_BIND)
    linux.mount("none", "/proc", flags=linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY | linux.STRICT)


def _hidden(view: View, covers: Sequence[str]) -> list[str]:
    """What the new mounts would take from sight though it must be seen."""
    return [path for path in view.readable if any(is_beneath(path, cover) for cover in (*covers, "/tmp"))]  # noqa: S108


@contextlib.contextmanager
def _path(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def _show(path: str, fd: int, *, writable: bool) -> None:
    os.makedirs(path, 0o700, exist_ok=True)
    linux.mount(f"/proc/self/fd/{fd}", path, flags=linux.MS_BIND)
    flags = linux.MS_BIND | linux.MS_REMOUNT | linux.MS_NOSUID | linux.MS_NODEV
    linux.mount("none", path, flags=flags | (linux.MS_NOEXEC if writable else linux.MS_RDONLY))


# Files, descriptors, limits -----------------------------------------------------------------------------------------


def _allowed(tools: Tools, scratch: str, out: str) -> list[tuple[str, int]]:
    """For Landlock."""
    own = f"/proc/{os.getpid()}"
    allowed = [(path, landlock.READ) for path in (*tools.view.seen, scratch, own)]
    allowed += [(f"/proc/{name}", landlock.READ) for name in _PROC]
    allowed += [(path, landlock.DEVICE) for path in tools.view.devices]
    if tools.view.gpu is not None and tools.view.gpu.cuda:
        allowed.append((f"{own}/task", landlock.READ | landlock.WRITE_FILES))
    writable = (out, tmp_of(tools, scratch), *(("/dev/shm",) if tools.boxed else ()))  # noqa: S108
    return allowed + [(path, landlock.WRITE) for path in writable if path]


def _silence(kept: Sequence[int]) -> None:
    """Standard streams lead nowhere: a terminal or a log is not a worker's to write to."""
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    linux.close_all_but((0, 1, 2, *kept))


def _limit(limits: Limits) -> None:
    bounds = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, FILES_MAX), (resource.RLIMIT_MEMLOCK, LOCKED_BYTES)]
    if os.getuid():
        bounds.append((resource.RLIMIT_NPROC, PROCESSES_MAX))  # of the box's user as a whole; root's are not counted
    if limits.memory_bytes and limits.address_space:
        bounds.append((resource.RLIMIT_AS, limits.memory_bytes))
    if limits.disk_bytes:
        bounds.append((resource.RLIMIT_FSIZE, limits.disk_bytes))
    for kind, value in bounds:
        _lower(kind, value)
    if limits.cpu_s:
        resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_s, limits.cpu_s + 1))


def _lower(kind: int, value: int) -> None:
    """Never above what the process was given."""
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))
