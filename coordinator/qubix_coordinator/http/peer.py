# SPDX-License-Identifier: Apache-2.0
"""One node's session at work: its statements in order, in a task of its own, so that no node waits for another."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Tx
from qubix_coordinator.errors import QubixError, Unavailable
from qubix_coordinator.http.problems import code_of
from qubix_coordinator.http.session import Session
from qubix_coordinator.jobs import service as jobs
from qubix_coordinator.market import places
from qubix_coordinator.market import service as market
from qubix_coordinator.market.rules import Way
from qubix_coordinator.rentals import service as rentals
from qubix_coordinator.trials import flow as trials
from qubix_coordinator.trials import selftests
from qubix_coordinator.wishes import service as wishes
from qubix_protocol import barriers
from qubix_protocol.barriers import Barrier
from qubix_protocol.errors import BadSignature, Expired, ProtocolError, Replayed
from qubix_protocol.messages import (
    Accept,
    Acknowledged,
    Decline,
    Heartbeat,
    Hello,
    Leaving,
    Offer,
    Progress,
    Refused,
    RentalAccept,
    RentalBeat,
    RentalDecline,
    RentalNotice,
    Report,
    Settlements,
    SettlementsAsk,
    Telemetry,
)
from qubix_protocol.selftest import SelfTest
from qubix_protocol.statements import FromCoordinator, Statement
from qubix_protocol.trials import TrialAnswer, TrialFailed, TrialFilled, TrialGo, TrialProve, TrialReady
from qubix_protocol.units import OFFER_S
from qubix_protocol.wishes import DeviceWishTaken

if TYPE_CHECKING:
    from qubix_coordinator.http.mesh import Mesh

log = logging.getLogger(__name__)
T = TypeVar("T")
TELEMETRY_S: Final = 5.0
HANDSHAKE_S: Final = 15.0
STATEMENT_S: Final = 30.0
_WAITING_MAX: Final = 1024
_TABS_WAITING_MAX: Final = 64
_ASKED_MAX: Final = 16
NEWS: Final = (
    Accept,
    Decline,
    Progress,
    Report,
    RentalAccept,
    RentalDecline,
    RentalNotice,
    TrialReady,
    TrialFilled,
    TrialAnswer,
    TrialFailed,
    DeviceWishTaken,
)
"""What others wait for."""
_REFUSALS_MAX: Final = 200
"""A node that is refused more often in one session is cut off: it may start again with a handshake."""
_DETAIL_MAX: Final = 1000


TAKEN_OVER: Final = "a newer session of this node took over"


class Carrier(Protocol):
    """What brings a node's frames and takes those for it: a gateway's link, or a tab's own socket. Never waits."""

    def to_peer(self, peer_id: str, raw: bytes) -> None: ...

    def drop(self, peer: "Peer", reason: str) -> None:
        """Ends the session and the connection under it."""
        ...


class Waiting(NamedTuple):
    raw: bytes
    gossip: bool
    at_s: float
    """When it came, by a steady clock."""


class _Asked:
    """When the commands of a trial were sealed in this session: what the answers' time is taken from."""

    def __init__(self) -> None:
        self._sealed_s: dict[tuple[type[object], str], float] = {}

    def sealed(self, message: FromCoordinator) -> None:
        if isinstance(message, TrialGo | TrialProve):
            self._sealed_s.setdefault((type(message), message.trial_id), time.monotonic())
            while len(self._sealed_s) > _ASKED_MAX:
                del self._sealed_s[next(iter(self._sealed_s))]

    def took_ms(self, command: type[object], answer: TrialFilled | TrialAnswer, heard_s: float) -> int | None:
        """None: not asked in this session."""
        sealed_s = self._sealed_s.get((command, answer.trial_id))
        return None if sealed_s is None else max(0, round((heard_s - sealed_s) * 1000))


class Peer:
    def __init__(
        self, mesh: "Mesh", link: Carrier, session: Session, country: str = "", *, browser: bool = False
    ) -> None:
        """`country` by the address that the gateway saw; `browser`: a tab, by a socket of its own."""
        self.mesh, self.link, self.session = mesh, link, session
        self.peer_id: Final = session.peer_id
        self._way = Way(country, browser=browser, fallbacks=mesh.desk.settings.allow_fallback_adapters)
        self._inbox: asyncio.Queue[Waiting] = asyncio.Queue(_TABS_WAITING_MAX if browser else _WAITING_MAX)
        self._task: asyncio.Task[None] | None = None
        self.gone = False
        """Its gateway said that the connection broke."""
        self.left = False
        """It said itself that it goes."""
        self._stopped = False
        self._refusals = 0
        self._heard_s = 0.0
        self._asked = _Asked()

    def offer_frame(self, raw: bytes) -> bool:
        """False when too many statements wait already."""
        return self._put(Waiting(raw, gossip=False, at_s=time.monotonic()))

    def offer_gossip(self, raw: bytes) -> bool:
        return self._put(Waiting(raw, gossip=True, at_s=time.monotonic()))

    def send(self, message: FromCoordinator) -> None:
        self.link.to_peer(self.peer_id, self.session.seal(message))
        self._asked.sealed(message)

    def stop(self) -> None:
        self._stopped = True
        self._hear_last_word()
        if self._task is not None:
            self._task.cancel()

    async def run(self) -> None:
        """The session from challenge to end. Never raises: one node's trouble is not its gateway's."""
        self._task = asyncio.current_task()
        if self._stopped:
            return
        try:
            await self._shake_hands()
            while True:
                await self._handle(await self._inbox.get())
        except TimeoutError:
            self.mesh.count("no_hello")
            self.link.drop(self, "no Hello came in time")
        except asyncio.CancelledError:
            if not self._stopped:
                raise
        except Exception:
            # A defect met by one node's session: the others of this gateway go on.
            log.exception("mesh.session_failed", extra={"peer": self.peer_id})
            self.mesh.count("internal")
            self.link.drop(self, "the coordinator met a defect; connect again")

    def _hear_last_word(self) -> None:
        """A page that is closed says its word and is gone, sooner than what it said before is worked through."""
        last: bytes | None = None
        while not self._inbox.empty():
            waiting = self._inbox.get_nowait()
            last = last if waiting.gossip else waiting.raw
        if last is not None and self.session.live:
            with contextlib.suppress(ProtocolError):
                self.left = self.left or isinstance(self.session.receive(last).message, Leaving)

    def _put(self, waiting: Waiting) -> bool:
        try:
            self._inbox.put_nowait(waiting)
        except asyncio.QueueFull:
            return False
        return True

    async def _shake_hands(self) -> None:
        self.link.to_peer(self.peer_id, self.session.challenge())
        async with asyncio.timeout(HANDSHAKE_S):
            hello = await self._hello()
        raw = await self._through_outages(lambda: self._welcome(hello.region))
        self.link.to_peer(self.peer_id, raw)
        self.mesh.opened(self)
        self.mesh.count_received("hello")
        log.info("mesh.node_up", extra={"peer": self.peer_id, "incarnation": self.session.incarnation})
        try:
            await self._through_outages(lambda: jobs.on_hello(self.mesh.desk, self.peer_id, hello.attempts))
            await self._through_outages(lambda: rentals.on_hello(self.mesh.desk, self.peer_id, hello.rentals))
            await self._through_outages(lambda: wishes.on_hello(self.mesh.desk.db, self.peer_id))
        except QubixError as problem:
            self._refuse(code_of(type(problem)), problem)

    async def _hello(self) -> Hello:
        while True:
            waiting = await self._inbox.get()
            try:
                return self.session.receive_hello(waiting.raw)
            except ProtocolError as problem:
                self._refuse(problem.code, problem)

    async def _welcome(self, wish: str) -> bytes:
        desk = self.mesh.desk

        async def step(tx: Tx) -> tuple[int, str]:
            node = await accounts.ensure_node(tx, self.peer_id)
            return await accounts.next_incarnation(tx, self.peer_id), str(node.account_id)

        incarnation, account_id = await desk.db.run(step)
        return self.session.welcome(
            incarnation,
            account_id=account_id,
            heartbeat_s=desk.settings.heartbeat_s,
            offer_s=OFFER_S,
            telemetry_s=TELEMETRY_S,
            artifact_url=self.mesh.artifact_url,
            region=places.region(wish, self._way.country, desk.settings.regions),
            certificate_ms=desk.settings.certificate_s * 1000,
        )

    async def _handle(self, waiting: Waiting) -> None:
        self._heard_s = waiting.at_s
        try:
            if not waiting.gossip and (renewal := self.session.renewal()) is not None:
                self.send(renewal)
            await (self._handle_offer if waiting.gossip else self._handle_statement)(waiting.raw)
        except ProtocolError as problem:
            if waiting.gossip and isinstance(problem, Replayed | Expired):
                # Gossip is repeated by others, who may have been away for a while: the node did nothing wrong.
                self.mesh.count(problem.code)
            else:
                # Whichever gateway brought it may have made it up: it must not cost the node its session elsewhere.
                self._refuse(problem.code, problem, blamed=not waiting.gossip)
        except QubixError as problem:
            self._refuse(code_of(type(problem)), problem)
        except TimeoutError:
            self.mesh.count("late")
            log.warning("mesh.statement_late", extra={"peer": self.peer_id})

    async def _handle_offer(self, raw: bytes) -> None:
        heard = self.session.receive_advert(raw)
        if heard is not None:
            offer, said = heard
            self.mesh.count_received("offer")
            if not self._way.browser:
                self.mesh.relays_at(self.peer_id, offer.relays_at)
            await self._through_outages(lambda: self._fold(offer, said))

    async def _fold(self, offer: Offer, raw: bytes) -> None:
        desk = self.mesh.desk
        now_ms = desk.now_ms()
        if await market.offer_received(desk.db, self.peer_id, offer, raw, now_ms=now_ms, way=self._way):
            await jobs.offers_changed(desk, [rate.kernel for rate in offer.rates])

    async def _handle_statement(self, raw: bytes) -> None:
        message, envelope = self.session.receive(raw)
        self.mesh.count_received(type(message).__name__.lower())
        reply = await self._through_outages(lambda: self._dispatch(message, envelope))
        if isinstance(message, NEWS):
            self.mesh.nudge()
        if isinstance(message, RentalBeat):
            await barriers.reach(Barrier.RENTAL_ANSWERED)
        if isinstance(reply, Acknowledged):
            await barriers.reach(Barrier.REPORT_COMMITTED if reply.link is None else Barrier.LINK_COMMITTED)
        if reply is not None:
            self.send(reply)

    async def _through_outages(self, step: Callable[[], Awaitable[T]]) -> T:
        """`step`, again after each outage: what a node said is neither lost nor refused because a database is away.

        What the node goes on to say waits in the inbox, whose bound ends a session that waits too long.
        """
        while True:
            try:
                async with asyncio.timeout(STATEMENT_S):
                    return await step()
            except Unavailable:
                await self.mesh.desk.db.until_back()

    async def _dispatch(self, message: Statement, raw: bytes) -> Acknowledged | Settlements | None:
        """What a node says is durable when this returns; only then is it acknowledged. Samples are not: they wait for
        their batch, so that what follows them does not."""
        desk, peer_id = self.mesh.desk, self.peer_id
        match message:
            case Heartbeat():
                await jobs.on_heartbeat(desk, peer_id, message)
            case Telemetry():
                self.mesh.ingest.offer(peer_id, message, desk.now_ms())
            case Progress():
                return await jobs.on_progress(desk, peer_id, message, raw)
            case Report():
                return await jobs.on_report(desk, peer_id, message, raw)
            case Accept():
                await jobs.on_accept(desk, peer_id, message)
            case Decline():
                await jobs.on_decline(desk, peer_id, message)
            case RentalAccept():
                await rentals.on_accept(desk, peer_id, message)
            case RentalDecline():
                await rentals.on_decline(desk, peer_id, message)
            case RentalBeat():
                await rentals.on_beat(desk, peer_id, message)
            case RentalNotice():
                await rentals.on_notice(desk, peer_id, message)
            case SelfTest():
                await selftests.on_selftest(desk, peer_id, message)
            case TrialReady():
                await trials.on_ready(desk, peer_id, message)
            case TrialFilled():
                await trials.on_filled(desk, peer_id, message, self._asked.took_ms(TrialGo, message, self._heard_s))
            case TrialAnswer():
                await trials.on_answer(desk, peer_id, message, self._asked.took_ms(TrialProve, message, self._heard_s))
            case TrialFailed():
                await trials.on_failed(desk, peer_id, message)
            case DeviceWishTaken():
                await wishes.on_taken(desk.db, peer_id, message, now_ms=desk.now_ms())
            case Leaving():
                self.left = True
                await jobs.on_leaving(desk, peer_id, self.session.incarnation)
            case SettlementsAsk():
                return await jobs.on_settlements_ask(desk, peer_id, message)
            case Refused():
                log.warning(
                    "mesh.refused_by_node", extra={"peer": peer_id, "code": message.code, "why": message.detail}
                )
        return None

    def _refuse(self, code: str, problem: Exception, *, blamed: bool = True) -> None:
        """Counted, logged, and told to the node unless somebody else may have said it."""
        self.mesh.count(code)
        self._refusals += int(blamed)
        log.warning("mesh.refused", extra={"peer": self.peer_id, "code": code, "problem": str(problem)[:_DETAIL_MAX]})
        if self.session.live and not isinstance(problem, BadSignature):
            remedy = getattr(problem, "remedy", "")
            self.send(Refused(code=code, detail=str(problem)[:_DETAIL_MAX], remedy=remedy[:_DETAIL_MAX]))
        if self._refusals >= _REFUSALS_MAX:
            self.link.drop(self, "too many statements were refused")
