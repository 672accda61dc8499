# SPDX-License-Identifier: Apache-2.0
"""The way past every gateway (trust P4): links and reports that are not acknowledged over the mesh go by HTTPS."""

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import httpx
import trio

from qubix_node.clock import wall_ms
from qubix_node.errors import StatementRefused, Unreachable
from qubix_node.identity import Incarnations
from qubix_node.jobs.outbox import Key, Outbox
from qubix_node.voice import Pins
from qubix_protocol.envelope import open_envelope, seal
from qubix_protocol.errors import ProtocolError, Replayed
from qubix_protocol.messages import Acknowledged, Message
from qubix_protocol.units import FRAME_BYTES_MAX

log = logging.getLogger("qubix_node")
LOOK_S: Final = 3.0
_REQUEST_S: Final = 10.0
_LIFE_MS: Final = 30_000
_MAY_PASS: Final = frozenset({401, 408, 425, 429})
"""401: a newer session began meanwhile, or the clocks are apart."""

Post = Callable[[bytes], Awaitable[bytes]]
"""Brings one envelope to the coordinator and gives its answer. Raises `Unreachable`, or `StatementRefused`."""


class Courier:
    """`linked` tells whether a session stands, `clock_ms` is the coordinator's clock as far as it is known."""

    def __init__(
        self,
        post: Post,
        pins: Pins,
        incarnations: Incarnations,
        outbox: Outbox,
        *,
        linked: Callable[[], bool],
        clock_ms: Callable[[], int],
        heard: Callable[[Message], Awaitable[None]],
    ) -> None:
        self._post, self._pins, self._incarnations, self._outbox = post, pins, incarnations, outbox
        self._linked, self._clock_ms, self._heard = linked, clock_ms, heard
        self._counter = 0
        self._refused: set[Key] = set()

    async def run(self) -> None:
        """Until cancelled. Nothing is brought that the mesh still has time for."""
        while True:
            await trio.sleep(LOOK_S)
            try:
                await self._bring_all()
            except Unreachable as error:
                log.debug("courier.coordinator_unreachable", extra={"reason": str(error)})

    async def _bring_all(self) -> None:
        """In order, so that a report follows its links; what was refused once is left to the mesh."""
        waiting = self._outbox.overdue() if self._linked() else self._outbox.waiting()
        for key, message in waiting:
            if key in self._refused:
                continue
            try:
                acknowledged = await self._bring(message)
            except (StatementRefused, ProtocolError) as error:
                log.info("courier.refused", extra={"attempt": key[0], "link": key[1], "reason": str(error)})
                self._refused.add(key)
                continue
            log.info("courier.acknowledged", extra={"attempt": key[0], "link": key[1]})
            await self._heard(acknowledged)

    async def _bring(self, message: Message) -> Acknowledged:
        pins, counter = self._pins, self._next()
        raw = seal(
            message,
            pins.key,
            network=pins.network,
            audience=pins.coordinator,
            incarnation=self._incarnations.last,
            counter=counter,
            expires_ms=self._clock_ms() + _LIFE_MS,
        )
        sequence = (self._incarnations.last, counter)
        opened = open_envelope(
            await self._post(raw),
            network=pins.network,
            audience=pins.key.public,
            now_ms=self._clock_ms(),
            sender=pins.coordinator,
            limit_bytes=FRAME_BYTES_MAX,
        )
        if opened.sequence != sequence:
            raise Replayed("this answers another statement")
        return opened.body(Acknowledged)

    def _next(self) -> int:
        """A series of its own, by the clock, so that a restarted node does not begin it again."""
        self._counter = max(self._counter + 1, wall_ms())
        return self._counter


async def post(client: httpx.AsyncClient, url: str, raw: bytes) -> bytes:
    """A `Post` over a real client. Few bytes each way: an answer that is longer is none."""
    headers = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
    try:
        with trio.fail_after(_REQUEST_S):
            answer = await client.post(f"{url.rstrip('/')}/api/v1/nodes/statements", content=raw, headers=headers)
    except (httpx.HTTPError, trio.TooSlowError) as error:
        raise Unreachable(str(error) or type(error).__name__) from error
    if answer.status_code >= 500 or answer.status_code in _MAY_PASS:
        raise Unreachable(f"HTTP status {answer.status_code}")
    if not answer.is_success:
        raise StatementRefused(f"HTTP status {answer.status_code}: {answer.text[:300]}")
    return answer.content
