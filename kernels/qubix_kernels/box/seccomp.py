# SPDX-License-Identifier: Apache-2.0
"""Which system calls a worker may make: a list of what is allowed; everything else fails with EPERM.

Made for arithmetic on files: memory, threads, files, clocks, one inherited socket. No program is started, no process
made, no socket opened, no namespace, no signal to anybody else. Nor are folders, links or modes made: what a worker
leaves behind is a flat folder of plain files, which the parent can read, count and remove.
"""

import errno
import os
from typing import Any, Final, Literal

Profile = Literal["cpu", "cuda", "limited", "limited-cuda"]
"""`limited`: without a box around it, where a process id means somebody, and an address of a socket, too."""

_FILES: Final = """access chdir close close_range dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_pwait
epoll_pwait2 epoll_wait eventfd eventfd2 faccessat faccessat2 fadvise64 fchdir fcntl fdatasync fstat fstatfs fsync
ftruncate getcwd getdents getdents64 lseek lstat newfstatat open openat openat2 pipe pipe2 poll ppoll pread64 preadv
preadv2 pselect6 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv rename renameat renameat2 select
sendfile stat statfs statx sync_file_range truncate unlink unlinkat utimensat write writev"""
_MEMORY: Final = """brk get_mempolicy madvise mbind membarrier mincore mlock mmap mprotect mremap msync munlock munmap
set_mempolicy"""
_THREADS: Final = """arch_prctl exit exit_group futex futex_waitv get_robust_list getcpu getegid geteuid getgid
getgroups getpgrp getpid getppid getpriority getresgid getresuid getrlimit getrusage gettid getuid prlimit64
restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigtimedwait
sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getparam sched_getscheduler sched_setaffinity
sched_yield set_robust_list set_tid_address sigaltstack sysinfo times uname wait4 waitid"""
_CLOCKS: Final = """clock_getres clock_gettime clock_nanosleep getitimer getrandom gettimeofday nanosleep setitimer
time timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime
timerfd_settime"""
_SOCKET: Final = "getpeername getsockname getsockopt recvfrom sendto setsockopt shutdown"
_CUDA: Final = "memfd_create mlock2 recvmsg sendmsg"
_CUDA_SOCKET: Final = "accept4 bind listen"
_CUDA_BOXED: Final = "connect sched_setscheduler socketpair"
"""The driver's library passes descriptors of its own over a socket that only its own process can reach."""

_GRAPHICS: Final = "memfd_create"
_GRAPHICS_IOCTLS: Final = "d>b"
"""Types of those of a render node (DRM), of its fences (sync files) and of memory that is shared between drivers."""

_CLONE_THREAD: Final = 0x0001_0000
_CLONE_NEW: Final = 0x7E02_0000
_AF_UNIX: Final = 1
_SOCKET_KIND, _STREAM, _SEQPACKET = 0xF, 1, 5
_CONNECTED: Final = (("socket", _SEQPACKET), ("socketpair", _SEQPACKET), ("socketpair", _STREAM))
_IOCTLS: Final = (0x5401, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS (is it a terminal?), FIONREAD, FIONBIO, FIONCLEX, FIOCLEX."""
_NVIDIA_IOCTLS: Final = ((0xFF00, 0x4600), (0xFFFF_FF00, 0), (0xFFFF_FFF0, 0x3000_0000))
"""Mask and value: those of type F, and the two ranges of nvidia-uvm, which numbers its own without a type."""
_PRCTLS: Final = (3, 15, 16, 23, 29, 39, 41, 42, 0x5356_4D41)
"""Names of threads and mappings, timer slack, transparent huge pages, and questions."""


def program(profile: Profile, *, graphics: bool = False) -> bytes:
    """The filter as the kernel takes it; `graphics`: for a card that Vulkan drives, too.

    Raises OSError, or RuntimeError where libseccomp is missing.
    """
    import pyseccomp as sc

    made = sc.SyscallFilter(sc.ERRNO(errno.EPERM))
    allowed = " ".join((_FILES, _MEMORY, _THREADS, _CLOCKS, _SOCKET)).split()
    allowed += [*_CUDA.split(), *_CUDA_SOCKET.split()] if profile in ("cuda", "limited-cuda") else []
    allowed += _CUDA_BOXED.split() if profile == "cuda" else []
    allowed += _GRAPHICS.split() if graphics else []
    for name in allowed:
        _try_rule(made, sc.ALLOW, name)
    _try_rule(made, sc.ALLOW, "clone", sc.Arg(0, sc.MASKED_EQ, _CLONE_THREAD | _CLONE_NEW, _CLONE_THREAD))
    _try_rule(made, sc.ERRNO(errno.ENOSYS), "clone3")  # its flags lie in memory; the C library falls back to clone
    for request in _IOCTLS:
        _try_rule(made, sc.ALLOW, "ioctl", sc.Arg(1, sc.MASKED_EQ, 0xFFFF_FFFF, request))
    for option in _PRCTLS:
        _try_rule(made, sc.ALLOW, "prctl", sc.Arg(0, sc.EQ, option))
    if profile == "cuda":
        _try_rule(made, sc.ALLOW, "socket", sc.Arg(0, sc.EQ, _AF_UNIX))
    # Such as send to whom they are connected with, and to no address.
    for call, way in _CONNECTED if profile == "limited-cuda" else ():
        _try_rule(made, sc.ALLOW, call, sc.Arg(0, sc.EQ, _AF_UNIX), sc.Arg(1, sc.MASKED_EQ, _SOCKET_KIND, way))
    for mask, value in _NVIDIA_IOCTLS if profile in ("cuda", "limited-cuda") else ():
        _try_rule(made, sc.ALLOW, "ioctl", sc.Arg(1, sc.MASKED_EQ, mask, value))
    for kind in _GRAPHICS_IOCTLS if graphics else ():
        _try_rule(made, sc.ALLOW, "ioctl", sc.Arg(1, sc.MASKED_EQ, 0xFF00, ord(kind) << 8))
    if profile in ("cpu", "cuda"):
        _try_rule(made, sc.ALLOW, "tgkill", sc.Arg(0, sc.EQ, 1))  # a worker is process 1 of its own namespace
    return _exported(made)


def _try_rule(made: Any, action: int, name: str, *conditions: Any) -> None:
    """A call that this architecture or libseccomp does not know stays forbidden."""
    import pyseccomp as sc

    if sc.resolve_syscall(sc.system_arch(), name) >= 0:
        made.add_rule(action, name, *conditions)


def _exported(made: Any) -> bytes:
    """Some 2 kB, which a pipe holds."""
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as program:
        with open(write_end, "wb") as file:
            made.export_bpf(file)
        return program.read()
