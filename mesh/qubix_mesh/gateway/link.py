# SPDX-License-Identifier: Apache-2.0
"""The one WebSocket to the coordinator: opened, kept, opened again."""

import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, HandshakeError

from qubix_mesh import rules
from qubix_mesh.gateway.errors import LinkLost, LinkRefused
from qubix_mesh.gateway.outbox import Outbox
from qubix_mesh.gateway.websocket import CONNECT_S, open_socket
from qubix_protocol.errors import ProtocolError
from qubix_protocol.link import Drop, LinkOpen, LinkReady, ToPeer, decode_coordinator, encode_gateway

log = logging.getLogger("qubix_gateway")

SEND_S: Final = 10.0
PING_EVERY_S: Final = 10.0
PING_S: Final = 5.0
_STABLE_S: Final = 5.0
_BACKOFF_MAX_S: Final = 2.0
"""Gateways are few, and every node behind one has a lease that runs: better soon than gently."""
_REFUSED_STATUS: Final = (401, 403)
_LOSSES: Final = (LinkLost, HandshakeError, ConnectionClosed, OSError, ProtocolError, trio.TooSlowError)


class CoordinatorLink:
    """Runs until cancelled. Sends what the outbox holds; tells of the link's coming and going, topics and commands.
    `pinned` is the only coordinator's key to talk with, once there is one."""

    def __init__(
        self,
        url: str,
        token: str,
        opening: LinkOpen,
        outbox: Outbox,
        *,
        pinned: Callable[[], bytes | None],
        on_up: Callable[[], None],
        on_down: Callable[[], None],
        on_ready: Callable[[LinkReady], None],
        on_command: Callable[[ToPeer | Drop], None],
    ) -> None:
        self._url = url
        self._headers = [(b"Authorization", b"Bearer " + token.encode())]
        self._opening = opening
        self._outbox = outbox
        self._pinned = pinned
        self._on_up, self._on_down = on_up, on_down
        self._on_ready, self._on_command = on_ready, on_command
        self._chance = random.Random()  # noqa: S311  spreads retries, guards nothing
        self.refused = 0
        self.lost = 0

    async def run(self) -> None:
        failures = 0
        while True:
            started_s = trio.current_time()
            try:
                await self._session()
            except LinkRefused as error:
                self.refused += 1
                log.log(
                    logging.ERROR if failures == 0 else logging.INFO,
                    "gateway.link_refused",
                    extra={"reason": str(error)},
                )
            except LinkLost as error:
                self.lost += 1
                log.info("gateway.link_lost", extra={"reason": str(error), "failures": failures})
            failures = 0 if trio.current_time() - started_s >= _STABLE_S else failures + 1
            await trio.sleep(rules.backoff_s(failures, self._chance.random(), first_s=0.1, max_s=_BACKOFF_MAX_S))

    async def _session(self) -> None:
        """One connection, from its handshake to its end, which is always `LinkLost` or `LinkRefused`."""
        try:
            async with open_socket(self._url, self._headers) as socket:
                await self._talk(socket)
        except ConnectionRejected as error:
            raise _rejected(error) from error
        except _LOSSES as error:
            raise LinkLost(_reason(error)) from error

    async def _talk(self, socket: Any) -> None:
        with trio.fail_after(CONNECT_S):
            await socket.send_message(encode_gateway((self._opening,)))
            first, *rest = await self._receive(socket)
        self._check_ready(first)
        log.info("gateway.link_up", extra={"url": self._url})
        self._on_up()
        try:
            for item in (first, *rest):
                self._obey(item)
            await self._exchange(socket)
        finally:
            self._on_down()

    async def _exchange(self, socket: Any) -> None:
        """Both ways until one fails; raises what failed first."""
        failures: list[Exception] = []
        async with trio.open_nursery() as nursery:

            async def until_it_fails(task: Callable[[Any], Awaitable[None]]) -> None:
                try:
                    await task(socket)
                except _LOSSES as error:
                    failures.append(error)
                    nursery.cancel_scope.cancel()

            for task in (self._read, self._write, self._keep_alive):
                nursery.start_soon(until_it_fails, task)
        raise failures[0]

    def _check_ready(self, ready: LinkReady | ToPeer | Drop) -> None:
        if not isinstance(ready, LinkReady):
            raise LinkLost("the coordinator did not begin with a ready frame")
        if ready.network != self._opening.network:
            raise LinkRefused(
                f"the coordinator serves {ready.network!r}, this gateway {self._opening.network!r}: set QUBIX_NETWORK"
            )
        pinned = self._pinned()
        if pinned is not None and ready.coordinator != pinned:
            raise LinkRefused(
                f"the coordinator's key is {ready.coordinator.hex()[:16]}…, this gateway trusts {pinned.hex()[:16]}…."
                " If the operator says that it was replaced, delete coordinator.json in the data folder and start again"
            )

    def _obey(self, item: LinkReady | ToPeer | Drop) -> None:
        if isinstance(item, LinkReady):
            self._on_ready(item)
        else:
            self._on_command(item)

    async def _receive(self, socket: Any) -> tuple[LinkReady | ToPeer | Drop, ...]:
        message = await socket.get_message()
        if not isinstance(message, bytes):
            raise LinkLost("the coordinator sent text where MessagePack belongs")
        items = decode_coordinator(message)
        if not items:
            raise LinkLost("the coordinator sent an empty batch")
        return items

    async def _read(self, socket: Any) -> None:
        while True:
            for item in await self._receive(socket):
                self._obey(item)

    async def _write(self, socket: Any) -> None:
        while True:
            batch = await self._outbox.next_batch()
            with trio.fail_after(SEND_S):
                await socket.send_message(encode_gateway(batch))

    async def _keep_alive(self, socket: Any) -> None:
        while True:
            await trio.sleep(PING_EVERY_S)
            with trio.fail_after(PING_S):
                await socket.ping()


def _rejected(error: ConnectionRejected) -> LinkLost | LinkRefused:
    if error.status_code in _REFUSED_STATUS:
        return LinkRefused(f"the coordinator answered {error.status_code}: check QUBIX_GATEWAY_TOKEN")
    return LinkLost(f"the coordinator answered {error.status_code}")


def _reason(error: BaseException) -> str:
    if isinstance(error, ConnectionClosed):
        return f"closed: {error.reason}"
    return str(error) or str(error.__cause__ or type(error).__name__)
