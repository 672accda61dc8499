# SPDX-License-Identifier: Apache-2.0
"""Landlock: files that a process may reach at all, whatever its mounts and its user say (linux/landlock.h).

The second line behind the mounts; in a limited child the first. A kernel that knows less is asked for less.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from typing import Final

from qubix_kernels.box import linux

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_ASK_VERSION: Final = 1
_PATH_BENEATH: Final = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = (1 << bit for bit in range(6))
_MAKE_DIR, _MAKE_REG = 1 << 7, 1 << 8
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_OF_FILES: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_KNOWN: Final = ((1, 13), (2, 14), (3, 15), (5, 16))
"""From this version of the interface on, this many access rights exist."""
_ALL_NET: Final = 0b11
_ALL_SCOPES: Final = 0b11

READ: Final = _EXECUTE | _READ_FILE | _READ_DIR
WRITE: Final = READ | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _TRUNCATE
WRITE_FILES: Final = _WRITE_FILE | _TRUNCATE
"""Those that are there: none is made or removed."""
DEVICE: Final = _READ_FILE | _WRITE_FILE | _IOCTL_DEV


def version() -> int:
    """Of the kernel's interface; 0 where there is none."""
    try:
        return linux.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(_ASK_VERSION))
    except OSError:
        return 0


def restrict(allowed: Iterable[tuple[str, int]], known: int) -> None:
    """Only these paths, and what is beneath them, are reached from here on; no TCP, no signals to processes outside,
    no abstract sockets outside. Paths that do not exist are left out. `no_new_privileges` must have been called.

    `known` is the interface's version.
    """
    rights = (1 << max(bits for since, bits in _KNOWN if since <= known)) - 1
    words = struct.pack("=QQQ", rights, _ALL_NET if known >= 4 else 0, _ALL_SCOPES if known >= 6 else 0)
    words = words[: 24 if known >= 6 else 16 if known >= 4 else 8]
    rules = linux.syscall(_CREATE, words, ctypes.c_size_t(len(words)), ctypes.c_uint(0))
    try:
        for path, access in allowed:
            _allow(rules, path, access & rights)
        linux.syscall(_RESTRICT, ctypes.c_int(rules), ctypes.c_uint(0))
    finally:
        os.close(rules)


def _allow(rules: int, path: str, access: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            access &= _OF_FILES
        words = struct.pack("=Qi", access, fd)
        linux.syscall(_ADD, ctypes.c_int(rules), ctypes.c_int(_PATH_BENEATH), words, ctypes.c_uint(0))
    finally:
        os.close(fd)
