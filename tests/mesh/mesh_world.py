# SPDX-License-Identifier: Apache-2.0
"""What the mesh tests share: both meshes behind one door, and waiting without guessing."""

import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import trio

from qubix_mesh.fake import FakeNetwork, open_fake_mesh
from qubix_mesh.host import open_mesh
from qubix_mesh.port import Mesh, Stream

LIMIT = 64 * 1024
ECHO = "/test/echo/1"
DEADLINE_S = 30.0


def seed(number: int) -> bytes:
    return bytes([number]) * 32


class World:
    """Opens meshes of one kind that can reach each other."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._network = FakeNetwork(1)

    def open(self, number: int, listen: Sequence[str] = ("/ip4/127.0.0.1/tcp/0",)) -> AbstractAsyncContextManager[Mesh]:
        if self.kind == "fake":
            return open_fake_mesh(self._network, seed(number), listen=listen)
        return open_mesh(seed(number), listen=listen)


async def echo(stream: Stream) -> None:
    while True:
        await stream.send(await stream.receive(limit_bytes=LIMIT, timeout_s=None), timeout_s=10)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  what is waited for has no event to offer
            await trio.sleep(0.01)


async def repeat_until(action: Callable[[], Awaitable[None]], condition: Callable[[], bool]) -> None:
    """Gossip is best effort and a subscription takes a moment to be known: say it again until it is heard."""
    with trio.fail_after(DEADLINE_S):
        while not condition():
            await action()
            await trio.sleep(0.05)


def open_sockets() -> set[str]:
    return set(_sockets())


def _sockets() -> Iterator[str]:
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:
            continue
        if target.startswith("socket:"):
            yield target
