# SPDX-License-Identifier: Apache-2.0
"""The node's one conversation with the coordinator: over whichever gateway answers, for as long as the node lives."""

import logging
import random
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from qubix_mesh.errors import MeshError, MeshTimeout
from qubix_mesh.port import Mesh, Stream
from qubix_mesh.rules import backoff_s
from qubix_node.clock import wall_ms
from qubix_node.errors import LinkLost, NotLinked
from qubix_node.identity import Incarnations
from qubix_node.session import Session, answer, believe_challenge
from qubix_node.voice import Pins
from qubix_protocol.channel import KEY_BYTES, Channel, Exchange, Side, label_of
from qubix_protocol.errors import NotGenuine, ProtocolError
from qubix_protocol.messages import Challenge, Hello, Message, Refused, Renewal, Welcome
from qubix_protocol.units import CONTROL_PROTOCOL, FRAME_BYTES_MAX

log = logging.getLogger("qubix_node")

DIAL_S: Final = 10.0
HANDSHAKE_S: Final = 20.0
SEND_S: Final = 10.0
_STABLE_S: Final = 5.0
_BACKOFF_MAX_S: Final = 5.0
_FRAMES_IN_HANDSHAKE: Final = 64


class Live:
    """One session on one stream, while it lasts."""

    def __init__(self, session: Session, stream: Stream) -> None:
        self.session: Final = session
        self._stream = stream
        self._order = trio.Lock()

    @property
    def welcome(self) -> Welcome:
        return self.session.welcome

    async def send(self, message: Message) -> None:
        """Sealed and handed to the stream, in one order for all tasks. Raises `MeshError`."""
        async with self._order:
            await self._stream.send(self.session.seal(message), timeout_s=SEND_S)


SessionTask = Callable[[Live], Awaitable[None]]
Commands = Callable[[Message], Awaitable[None]]
Addresses = Callable[[int], Awaitable[Sequence[str]]]
"""Gateways to try, best first; the argument counts the rounds in which none of them worked."""


class Link:
    """`tasks` run anew in each session; `commands` gets every believed command, in order, and must be quick; `met`
    hears through which gateway a session began; `agreed` hears of each session's keys before they are used."""

    def __init__(
        self,
        mesh: Mesh,
        pins: Pins,
        incarnations: Incarnations,
        *,
        addresses: Addresses,
        hello: Callable[[bytes, bytes], Hello],
        commands: Commands,
        tasks: Sequence[SessionTask],
        met: Callable[[str], Awaitable[None]],
        agreed: Callable[[bytes, Channel], None] = lambda exchange, channel: None,
    ) -> None:
        self._mesh, self._pins, self._incarnations = mesh, pins, incarnations
        self._addresses, self._hello, self._commands, self._tasks = addresses, hello, commands, tasks
        self._met, self._agreed = met, agreed
        self._live: Live | None = None
        self.coordinator_ms: Callable[[], int] = wall_ms
        """The coordinator's clock as the last handshake told it; this machine's before the first."""
        self._changed = trio.Event()
        self._chance = random.Random()  # noqa: S311  spreads retries, guards nothing
        self.refused: Counter[str] = Counter()

    @property
    def linked(self) -> bool:
        return self._live is not None

    async def live(self, timeout_s: float) -> Live:
        """The session of now, or the next one. Raises `NotLinked`."""
        with trio.move_on_after(timeout_s):
            while self._live is None:
                await self._changed.wait()
            return self._live
        raise NotLinked(f"no session with the coordinator within {timeout_s:g} s")

    async def run(self) -> None:
        """Until cancelled: dial, talk, and when that ends go on with the next gateway."""
        failures = 0
        while True:
            addresses = await self._addresses(failures)
            if not addresses:
                log.info("link.no_gateway", extra={"remedy": "start one, or name it in QUBIX_BOOTSTRAP"})
            for address in addresses:
                began = trio.current_time()
                await self._try(address)
                if trio.current_time() - began >= _STABLE_S:
                    failures = 0
            await trio.sleep(backoff_s(failures, self._chance.random(), max_s=_BACKOFF_MAX_S))
            failures += 1

    async def _try(self, address: str) -> None:
        try:
            peer = await self._mesh.connect(address, timeout_s=DIAL_S)
            stream = await self._mesh.open_stream(peer, CONTROL_PROTOCOL, timeout_s=DIAL_S)
        except MeshError as error:
            log.info("link.gateway_unreachable", extra={"reason": str(error)})
            return
        try:
            await self._converse(stream, address)
        except (MeshError, ProtocolError, LinkLost) as error:
            log.warning("link.lost", extra={"gateway": peer[-8:], "reason": str(error) or type(error).__name__})
        finally:
            await stream.abort()

    async def _converse(self, stream: Stream, address: str) -> None:
        """Handshake and session; a new challenge on the same stream (the coordinator restarted) begins another one."""
        challenge = await self._challenge(stream)
        while True:
            session = await self._shake_hands(stream, challenge)
            log.info("link.up", extra={"gateway": stream.peer_id[-8:], "session": session.welcome.incarnation})
            await self._met(address)
            challenge = await self._talk(Live(session, stream))

    async def _challenge(self, stream: Stream) -> Challenge:
        raw = await self._frame(stream, "challenge")
        return believe_challenge(raw, self._pins)

    async def _shake_hands(self, stream: Stream, challenge: Challenge) -> Session:
        """Raises `LinkLost` when the welcome is not newer than every session before."""
        exchange = Exchange(secrets.token_bytes(KEY_BYTES))
        channel = exchange.channel(challenge.exchange, nonce=challenge.nonce, side=Side.NODE)
        self._agreed(exchange.public, channel)
        hello = self._hello(challenge.nonce, exchange.public)
        await stream.send(answer(challenge, hello, self._pins, channel, wall_ms), timeout_s=HANDSHAKE_S)
        raw = await self._frame(stream, "welcome")
        session = Session.begin(raw, challenge, self._pins, channel, wall_ms)
        self.coordinator_ms = session.coordinator_ms
        if not await trio.to_thread.run_sync(self._incarnations.advance, session.welcome.incarnation):
            raise LinkLost(
                f"session {session.welcome.incarnation} is not newer than {self._incarnations.last}: a recording?"
            )
        return session

    async def _frame(self, stream: Stream, wanted: str) -> bytes:
        """The next frame that claims this type; frames left over from a session before are passed over."""
        with trio.move_on_after(HANDSHAKE_S):
            for _ in range(_FRAMES_IN_HANDSHAKE):
                raw = await stream.receive(limit_bytes=FRAME_BYTES_MAX, timeout_s=HANDSHAKE_S)
                if label_of(raw) == wanted:
                    return raw
                self._count("out_of_turn")
        raise MeshTimeout(f"no {wanted} came from the coordinator within {HANDSHAKE_S:g} s")

    async def _talk(self, live: Live) -> Challenge:
        """Runs the session's tasks and obeys commands until a new challenge comes. Raises `MeshError`, `LinkLost`."""
        failed: list[Exception] = []
        challenge: Challenge | None = None
        self._set(live)
        try:
            async with trio.open_nursery() as nursery:
                for task in self._tasks:
                    nursery.start_soon(self._guarded, task, live, failed, nursery.cancel_scope)
                try:
                    challenge = await self._obey(live)
                except MeshError as error:
                    failed.append(error)
                nursery.cancel_scope.cancel()
        finally:
            self._set(None)
        if challenge is None:
            raise failed[0] if failed else LinkLost("the session ended")
        return challenge

    async def _guarded(self, task: SessionTask, live: Live, failed: list[Exception], scope: trio.CancelScope) -> None:
        """A stream that broke under one task ends the session, quietly."""
        try:
            await task(live)
        except MeshError as error:
            failed.append(error)
            scope.cancel()

    async def _obey(self, live: Live) -> Challenge:
        while True:
            raw = await live._stream.receive(limit_bytes=FRAME_BYTES_MAX, timeout_s=None)
            try:
                if label_of(raw) == "challenge":
                    return believe_challenge(raw, self._pins)
                message = live.session.believe(raw)
                if isinstance(message, Renewal):
                    live.session.voice.certify(message.certificate)
                    continue
            except ProtocolError as error:
                self._count(error.code)
                log.warning("link.refused", extra={"code": error.code, "reason": str(error)})
                if not isinstance(error, NotGenuine):
                    await live.send(Refused(code=error.code, detail=str(error)[:500]))
                continue
            await self._commands(message)

    def _set(self, live: Live | None) -> None:
        self._live = live
        self._changed.set()
        self._changed = trio.Event()

    def _count(self, code: str) -> None:
        self.refused[code] += 1
