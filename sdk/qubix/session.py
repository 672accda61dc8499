# SPDX-License-Identifier: Apache-2.0
"""Requests to one coordinator: retried, their problems named, their answers typed; and who that coordinator is."""

import random
import time
from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from qubix import pins, problems, retry
from qubix.errors import ApiError, CannotReach
from qubix.settings import Settings
from qubix.transport import Call, Disconnected, Port, Reply
from qubix_protocol.api import NetworkView

T = TypeVar("T")
API: Final = "/api/v1"


class Session:
    def __init__(self, settings: Settings, port: Port) -> None:
        self.settings: Final = settings
        self.port: Final = port
        self._network: NetworkView | None = None
        self._clock_ahead_ms = 0

    async def get(self, path: str, kind: type[T], query: Mapping[str, str | int] | None = None) -> T:
        reply = await self.send(Call(method="GET", path=API + path, query=query or {}))
        return self.decode(reply, kind, path)

    async def post(
        self, path: str, body: msgspec.Struct | None, kind: type[T], *, key: str = "", repeatable: bool = True
    ) -> T:
        """`key` is the idempotency key, which makes any request repeatable."""
        headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
        content = b"{}" if body is None else msgspec.json.encode(body)
        call = Call(method="POST", path=API + path, headers=headers, content=content, repeatable=repeatable)
        return self.decode(await self.send(call), kind, path)

    async def post_signed(self, path: str, statement: bytes, kind: type[T]) -> T:
        """A signed statement, which serves once: it is never sent again."""
        headers = {"Content-Type": "application/msgpack"}
        call = Call(method="POST", path=API + path, headers=headers, content=statement, repeatable=False)
        return self.decode(await self.send(call), kind, path)

    async def patch(self, path: str, body: msgspec.Struct, kind: type[T]) -> T:
        headers = {"Content-Type": "application/json"}
        call = Call(method="PATCH", path=API + path, headers=headers, content=msgspec.json.encode(body))
        return self.decode(await self.send(call), kind, path)

    async def delete(self, path: str, kind: type[T], query: Mapping[str, str | int] | None = None) -> T:
        reply = await self.send(Call(method="DELETE", path=API + path, query=query or {}))
        return self.decode(reply, kind, path)

    def decode(self, reply: Reply, kind: type[T], what: str) -> T:
        try:
            return msgspec.json.decode(reply.content, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ApiError(
                f"the answer to {what} is not what this version of the SDK understands ({error})",
                status=reply.status,
                code="unreadable_answer",
                remedy="Bring the SDK and the coordinator to the same version.",
            ) from error

    async def send(self, call: Call) -> Reply:
        """A successful answer. Raises `ApiError` or `CannotReach` when the last try failed too."""
        for tries in range(1, self.settings.tries_max + 1):
            last = tries == self.settings.tries_max
            try:
                reply = await self.port.send(call)
            except Disconnected as error:
                if last or (error.sent and not call.repeatable):
                    raise CannotReach(self.settings.url, str(error)) from error
                wait_s = retry.delay_s(tries, random.random())  # noqa: S311  spreads callers, keeps no secret
            else:
                if reply.status < 300:
                    return reply
                if last or not retry.may_repeat(reply.status, repeatable=call.repeatable):
                    raise problems.error_of(reply, f"{call.method} {call.path}")
                wait_s = retry.delay_s(tries, random.random(), reply.headers.get("retry-after", ""))  # noqa: S311
            await self.port.sleep(wait_s)
        raise AssertionError("the last try returns or raises")

    async def network(self) -> NetworkView:
        """Asked once; the first answer of an address is remembered on disk and another key is refused later."""
        if self._network is None:
            view = await self.get("/network", NetworkView)
            self._clock_ahead_ms = view.clock_ms - round(time.time() * 1000)
            settings = self.settings
            await self.port.aside(lambda: pins.check(settings.data_dir, settings.url, view))
            self._network = view
        return self._network

    def clock_ms(self) -> int:
        """The coordinator's clock, once `network` was asked; this machine's before."""
        return round(time.time() * 1000) + self._clock_ahead_ms
