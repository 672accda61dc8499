# SPDX-License-Identifier: Apache-2.0
"""The few system calls of Linux that Python has no words for. Each raises OSError; numbers are of linux/*.h."""

import ctypes
import os
from collections.abc import Iterable
from typing import Final

_libc: Final = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWIPC: Final = 0x0800_0000
CLONE_NEWPID: Final = 0x2000_0000
CLONE_NEWNET: Final = 0x4000_0000

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REMOUNT: Final = 32
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
STRICT: Final = MS_NOSUID | MS_NODEV | MS_NOEXEC

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_SECCOMP: Final = 22
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_MODE_FILTER: Final = 2
_CAP_VERSION_3: Final = 0x2008_0522
_FDS_MAX: Final = 65536


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _done(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def syscall(number: int, *arguments: object) -> int:
    return _done(_libc.syscall(ctypes.c_long(number), *arguments), f"system call {number}")


def unshare(flags: int) -> None:
    _done(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(fd: int, kind: int) -> None:
    _done(_libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)), "setns")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    words = (source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None)
    _done(_libc.mount(*words), f"mount {kind or 'bind'} on {target}")


def _prctl(what: str, option: int, *arguments: object) -> None:
    words = [*arguments, *(ctypes.c_ulong(0) for _ in range(4 - len(arguments)))]
    _done(_libc.prctl(ctypes.c_int(option), *words), what)


def die_with_parent(signal: int) -> None:
    """`signal` comes when the *thread* ends that made this process."""
    _prctl("prctl PDEATHSIG", _PR_SET_PDEATHSIG, ctypes.c_ulong(signal))


def no_new_privileges() -> None:
    """From here on no program gives this process or its children more than they have."""
    _prctl("prctl NO_NEW_PRIVS", _PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1))


def not_dumpable() -> None:
    """No core file, and no other process of the same user may look into this one."""
    _prctl("prctl DUMPABLE", _PR_SET_DUMPABLE, ctypes.c_ulong(0))


def drop_capabilities() -> None:
    """All of them, for good: those one has, and where that is allowed those one could ever get."""
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) < 0:
            break
    header, nothing = _CapHeader(_CAP_VERSION_3, 0), (_CapData * 2)()
    _done(_libc.capset(ctypes.byref(header), nothing), "capset")


def filter_system_calls(program: bytes) -> None:
    """`program`: struct sock_filter one after the other. It stays for this process and its children."""
    words = _Program(len(program) // 8, program)
    _prctl("prctl SECCOMP", _PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(words))


def close_all_but(kept: Iterable[int]) -> None:
    """Every file descriptor that is not `kept`."""
    first = 0
    for fd in [*sorted(kept), min(os.sysconf("SC_OPEN_MAX"), _FDS_MAX)]:
        if fd > first:  # an empty range would be taken for all
            os.closerange(first, fd)
        first = fd + 1
