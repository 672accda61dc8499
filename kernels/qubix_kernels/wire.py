# SPDX-License-Identifier: Apache-2.0
"""What the parent and its zygote say to each other over one socket: length, MessagePack, and descriptors beside it."""

import os
import socket
import struct
import sys
from typing import Final, TypeVar

import msgspec

from qubix_kernels.box.rules import Limits, View
from qubix_kernels.box.watch import Cause

_HEAD: Final = struct.Struct(">I")
_CREDENTIALS: Final = struct.Struct("=3i")
_SCM_CREDENTIALS: Final = 2
_SO_PASSCRED: Final = 16
T = TypeVar("T", bound=msgspec.Struct)


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """The first word. `serve` is what a worker runs, as MODULE:FUNCTION; it takes the worker's socket."""

    view: View
    boxed: bool
    serve: str


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """`op`: fork (one file descriptor comes with it), kill, or status."""

    op: str
    number: int = 0
    scratch: str = ""
    out: str = ""
    limits: Limits = Limits()


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """`number` is the zygote's own for the worker. `status` as `os.waitstatus_to_exitcode` gives it (negative: ended by
    that signal); None while running. `cause`: the limit that it was ended for."""

    number: int = 0
    status: int | None = None
    cause: Cause = ""
    error: str = ""


def send(sock: socket.socket, value: msgspec.Struct, *, fds: tuple[int, ...] = (), about: int = 0) -> None:
    """`about`: a process of the sender's, which the receiver is told by the number that it has there."""
    body = msgspec.msgpack.encode(value)
    beside: list[tuple[int, int, bytes]] = []
    if fds:
        beside.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds)))
    if about and sys.platform == "linux":
        words = _CREDENTIALS.pack(about, os.getuid(), os.getgid())
        beside.append((socket.SOL_SOCKET, _SCM_CREDENTIALS, words))
    data = _HEAD.pack(len(body)) + body
    sent = sock.sendmsg([data], beside)
    if sent < len(data):
        sock.sendall(data[sent:])


def hear_processes(sock: socket.socket) -> None:
    """From here on `receive` tells whom a message is about."""
    if sys.platform == "linux":
        sock.setsockopt(socket.SOL_SOCKET, _SO_PASSCRED, 1)


def receive(sock: socket.socket, kind: type[T]) -> tuple[T, int] | None:
    """The next message and the process it is about (0: not told); None when the other side has closed."""
    head, beside, _, _ = sock.recvmsg(_HEAD.size, socket.CMSG_SPACE(_CREDENTIALS.size))
    if len(head) < _HEAD.size:
        return None
    body = exactly(sock, _HEAD.unpack(head)[0])
    if body is None:
        return None
    about = next((_CREDENTIALS.unpack(data)[0] for _, what, data in beside if what == _SCM_CREDENTIALS), 0)
    return msgspec.msgpack.decode(body, type=kind), about


def receive_with_fds(sock: socket.socket, kind: type[T], count: int) -> tuple[T, list[int]] | None:
    head, fds, _, _ = socket.recv_fds(sock, _HEAD.size, count)
    body = exactly(sock, _HEAD.unpack(head)[0]) if len(head) == _HEAD.size else None
    if body is None:
        for fd in fds:
            os.close(fd)
        return None
    return msgspec.msgpack.decode(body, type=kind), fds


def exactly(sock: socket.socket, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            return None
        data += more
    return data
