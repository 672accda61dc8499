# SPDX-License-Identifier: Apache-2.0
"""A twin of WalletConnect's relay: a real WebSocket server that speaks its JSON-RPC (specs.walletconnect.com, "Relay
Server RPC"). It judges tokens, keeps messages by topic until they end or were taken, and tells them again until they
are acknowledged. It sees sealed messages only, and can be as bad with them as anybody who runs a relay."""

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.support.wc_crypto import Refused, check_token, query_of

PROJECT: Final = "0123456789abcdef0123456789abcdef"
UNAUTHORIZED: Final = 3000
TOPIC_LETTERS: Final = 64


@dataclass
class Kept:
    topic: str
    message: str
    tag: int
    by: str
    ends_s: float
    taken: set[str] = field(default_factory=set)
    """Clients that acknowledged it."""


@dataclass(eq=False)
class Line:
    socket: ServerConnection
    client: str
    topics: dict[str, str] = field(default_factory=dict)
    """By subscription."""
    open: dict[int, Kept] = field(default_factory=dict)
    """Told, and not acknowledged."""


class RelayTwin:
    """`start` and `stop` as often as wanted: it keeps its address, and what it was given."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock, self.kept, self.lines = clock, list[Kept](), set[Line]()
        self.seen: list[Kept] = []
        """All that was ever published."""
        self.refused: list[str] = []
        self.serves = PROJECT
        self._server: Server | None = None
        self._port = 0
        self._ids = itertools.count(1_800_000_000_000_000_001)
        self._changed = asyncio.Condition()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._port}"

    async def start(self) -> None:
        self._server = await serve(self._serve, "127.0.0.1", self._port, ping_interval=None)
        self._port = next(iter(self._server.sockets)).getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def until(self, ready: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(ready)

    async def say(self, topic: str, message: str) -> None:
        """To whoever listens, from nobody: replayed, reordered or forged, as the caller has it."""
        for line in list(self.lines):
            if topic in line.topics.values():
                await self._tell(line, Kept(topic, message, 0, "", self.clock() + 60))

    def tags(self, topic: str) -> list[int]:
        return [one.tag for one in self.seen if one.topic == topic]

    async def _serve(self, socket: ServerConnection) -> None:
        try:
            client = self._client(socket)
        except Refused as reason:
            self.refused.append(str(reason))
            await socket.close(UNAUTHORIZED, str(reason))
            return
        line = Line(socket, client)
        self.lines.add(line)
        try:
            with contextlib.suppress(ConnectionClosed):
                async for frame in socket:
                    await self._hear(line, json.loads(frame))
        finally:
            self.lines.discard(line)
            await self._turn()

    def _client(self, socket: ServerConnection) -> str:
        asked = query_of(socket.request.path if socket.request else "")
        if asked.get("projectId") != self.serves:
            raise Refused("Project not found")
        return check_token(asked.get("auth", ""), self.url, self.clock())

    async def _hear(self, line: Line, told: dict[str, Any]) -> None:
        if "method" not in told:
            if kept := line.open.pop(told["id"], None):
                kept.taken.add(line.client)
        else:
            params = told["params"]
            answer = await getattr(self, "_" + told["method"].removeprefix("irn_"))(line, params)
            await line.socket.send(json.dumps({"id": told["id"], "jsonrpc": "2.0", "result": answer}))
            for topic in [params.get("topic"), *params.get("topics", ())]:
                if told["method"].lower().endswith("subscribe") and topic in line.topics.values():
                    await self._catch_up(line, topic)
        await self._turn()

    async def _publish(self, line: Line, params: dict[str, Any]) -> bool:
        assert set(params) <= {"topic", "message", "ttl", "tag", "prompt", "attestation"}, params
        kept = Kept(params["topic"], params["message"], params["tag"], line.client, self.clock() + params["ttl"])
        if any(one.message == kept.message and one.topic == kept.topic for one in self.kept):
            return True
        self.seen.append(kept)
        self.kept.append(kept)
        for other in list(self.lines):
            if other is not line and kept.topic in other.topics.values():
                await self._tell(other, kept)
        return True

    async def _subscribe(self, line: Line, params: dict[str, Any]) -> str:
        topic = params["topic"]
        assert len(topic) == TOPIC_LETTERS
        known = next((name for name, one in line.topics.items() if one == topic), "")
        name = known or f"{next(self._ids):x}"
        line.topics[name] = topic
        return name

    async def _batchSubscribe(self, line: Line, params: dict[str, Any]) -> list[str]:  # noqa: N802, the relay's name
        return [await self._subscribe(line, {"topic": topic}) for topic in params["topics"]]

    async def _unsubscribe(self, line: Line, params: dict[str, Any]) -> bool:
        return line.topics.pop(params["id"], None) is not None

    async def _catch_up(self, line: Line, topic: str) -> None:
        now = self.clock()
        self.kept = [one for one in self.kept if one.ends_s > now]
        for kept in self.kept:
            if kept.topic == topic and line.client not in (kept.by, *kept.taken):
                await self._tell(line, kept)

    async def _tell(self, line: Line, kept: Kept) -> None:
        number = next(self._ids)
        line.open[number] = kept
        data = {"topic": kept.topic, "message": kept.message, "publishedAt": int(self.clock() * 1000), "tag": kept.tag}
        frame = {"id": number, "jsonrpc": "2.0", "method": "irn_subscription", "params": {"id": "s", "data": data}}
        with contextlib.suppress(ConnectionClosed):
            await line.socket.send(json.dumps(frame))

    async def _turn(self) -> None:
        async with self._changed:
            self._changed.notify_all()
