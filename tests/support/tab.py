# SPDX-License-Identifier: Apache-2.0
"""A browser tab's half of its session with the coordinator, written out in Python."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from qubix_protocol import browser, envelope
from qubix_protocol.adverts import encode_advert
from qubix_protocol.browser import BROWSER_PATH, NO_EXCHANGE, BrowserOffer, BrowserOpen, BrowserSay
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Challenge, Device, Hello, Host, KernelRate, LiveAttempt, Message, Offer, Welcome
from qubix_protocol.states import Availability, DeviceKind

HOST = Host(system="Linux", cpu_model="", cpu_cores=2, memory_bytes=0, agent="test")
DEADLINE_S = 20.0
GIB = 1024**3


def gpu(**changes: Any) -> Device:
    plain: dict[str, Any] = {
        "device_id": "webgpu-1",
        "kind": DeviceKind.WEBGPU,
        "model": "A GPU",
        "memory_bytes": 8 * GIB,
        "backends": ("webgpu",),
    }
    return Device(**(plain | changes))


def offer(**changes: Any) -> Offer:
    plain: dict[str, Any] = {
        "device": gpu(),
        "rate_qu_per_h": 3_600,
        "region": "local",
        "availability": Availability.AVAILABLE,
        "rates": (KernelRate(kernel="matmul", backend="webgpu", flops_per_s=1e9, bytes_per_s=1e9),),
    }
    return Offer(**(plain | changes))


@dataclass
class Place:
    """The coordinator that it talks to."""

    url: str
    key: bytes
    now_ms: Callable[[], int]


class Tab:
    def __init__(self, place: Place, socket: ClientConnection, key: SigningKey) -> None:
        self.place, self.key, self._socket = place, key, socket
        self.incarnation, self._counter = 0, itertools.count(1)
        self.certificate = b""

    @property
    def peer_id(self) -> str:
        return self.key.peer_id

    def sign(self, message: Message, **wrong: Any) -> bytes:
        how: dict[str, Any] = {
            "network": "devnet",
            "audience": self.place.key,
            "incarnation": self.incarnation,
            "counter": next(self._counter),
            "expires_ms": self.place.now_ms() + 60_000,
        }
        return envelope.seal(message, wrong.pop("key", self.key), **{**how, **wrong})

    async def send(self, frame: browser.FromBrowser) -> None:
        await self._socket.send(browser.encode(frame))

    async def raw(self, data: str | bytes) -> None:
        await self._socket.send(data)

    async def say(self, message: Message, **wrong: Any) -> bytes:
        statement = self.sign(message, **wrong)
        await self.send(BrowserSay(statement=statement))
        return statement

    async def offer(self, said: Offer | None = None, **wrong: Any) -> None:
        signed = self.sign(said or offer(), **{"audience": envelope.ANYONE, **wrong})
        await self.send(BrowserOffer(advert=encode_advert(self.certificate, signed)))

    async def next(self) -> envelope.Opened:
        """The next envelope. Raises ConnectionClosed."""
        async with asyncio.timeout(DEADLINE_S):
            raw = bytes(await self._socket.recv(decode=False))
        return envelope.read_evidence(raw, network="devnet", sender=self.place.key)

    async def hear(self, kind: type[Any]) -> Any:
        """The next statement of this kind; others are passed over."""
        while True:
            opened = await self.next()
            assert opened.header.audience == self.key.public
            if opened.header.type == kind.__struct_config__.tag:
                return opened.body(kind)

    async def open(self, network: Any = "devnet") -> Challenge:
        await self.send(BrowserOpen(peer_id=self.peer_id, network=network))
        found: Challenge = await self.hear(Challenge)
        return found

    def hello(self, challenge: Challenge, **changes: Any) -> Hello:
        plain: dict[str, Any] = {"nonce": challenge.nonce, "exchange": NO_EXCHANGE, "clock_ms": 1, "host": HOST}
        return Hello(**(plain | changes))

    async def shake_hands(self, attempts: tuple[LiveAttempt, ...] = ()) -> Welcome:
        await self.say(self.hello(await self.open(), attempts=attempts))
        welcome: Welcome = await self.hear(Welcome)
        self.incarnation, self.certificate = welcome.incarnation, welcome.certificate
        return welcome

    async def closed(self) -> tuple[int, str]:
        """Code and reason, once the coordinator has closed it; what it still said is passed over."""
        async with asyncio.timeout(DEADLINE_S):
            await self._socket.wait_closed()
        return self._socket.close_code or 0, self._socket.close_reason or ""

    async def leave(self) -> None:
        """As a tab that is closed: no goodbye but the connection's own."""
        self._socket.transport.abort()


@contextlib.asynccontextmanager
async def tab_of(place: Place, key: SigningKey | None = None, origin: str | None = "") -> AsyncIterator[Tab]:
    """`origin` "": the server's own."""
    headers = {} if origin is None else {"Origin": origin or place.url}
    address = f"{place.url.replace('http', 'ws', 1)}{BROWSER_PATH}"
    async with connect(address, additional_headers=headers) as socket:
        yield Tab(place, socket, key or SigningKey.generate())
