# SPDX-License-Identifier: Apache-2.0
"""The jobs' market with rentals: a node answers by hand, the clock stands still, the engine ticks when told."""

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts.rules import Principal, Scope
from qubix_coordinator.db.database import Database, execute
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.engine import Engine as JobsEngine
from qubix_coordinator.market import service as market
from qubix_coordinator.rentals import service as rentals
from qubix_coordinator.rentals.engine import Engine
from qubix_coordinator.settings import Settings
from qubix_protocol.messages import RentalAccept, RentalBeat, RentalDecline, RentalNotice
from qubix_protocol.rentals import ExtendBody, RentalBody, RentalView
from tests.db.jobs_world import FEE_BPS, CannotNow, Node, World
from tests.support.funds import fund

RATE = 3_600_000
"""QU an hour: 1 QU a millisecond."""
SECONDS = 100
HOLD = SECONDS * 1_000
BEAT_S = 5.0


@dataclass
class Renter(Node):
    """A provider's node with one device, which may be rented."""

    async def listing_id(self) -> str:
        return str(market.listing_id(self.peer, "cpu-1"))

    async def told(self, kind: str) -> list[dict[str, Any]]:
        return [one for one in await self.world.commands(self) if one["t"] == kind]

    async def say_yes(self, rental_id: str) -> None:
        await rentals.on_accept(self.world.desk, self.peer, RentalAccept(rental_id=rental_id))

    async def say_no(self, rental_id: str, reason: str = "busy") -> None:
        message = RentalDecline(rental_id=rental_id, reason=reason)
        await rentals.on_decline(self.world.desk, self.peer, message)

    async def nonce(self, rental_id: str) -> bytes:
        """The newest one that it was asked."""
        found = await self.world.db.fetch("SELECT nonce FROM rental WHERE id = $1", uuid.UUID(rental_id))
        if not found or found[0]["nonce"] is None:
            raise CannotNow("it was not asked")
        return bytes(found[0]["nonce"])

    async def answer(self, rental_id: str, nonce: bytes | None = None) -> bytes:
        given = nonce if nonce is not None else await self.nonce(rental_id)
        await rentals.on_beat(self.world.desk, self.peer, RentalBeat(rental_id=rental_id, nonce=given))
        return given

    async def notice(self, rental_id: str, in_s: float, *, device_lost: bool = False, detail: str = "") -> None:
        ends_ms = self.world.desk.now_ms() + round(in_s * 1000)
        message = RentalNotice(rental_id=rental_id, ends_ms=ends_ms, device_lost=device_lost, detail=detail)
        await rentals.on_notice(self.world.desk, self.peer, message)


class RentalWorld(World):
    def __init__(self, db: Database) -> None:
        super().__init__(db)
        settings = Settings(data_dir=Path("/nonexistent"), fee_bps=FEE_BPS, lease_s=10.0, heartbeat_s=2.0)
        self.desk = Desk(db, settings, self.clock, self.key, "devnet")
        self.engine = JobsEngine(self.desk)
        self.rentals = Engine(self.desk)

    async def renter(self, **changes: Any) -> Renter:
        node = Renter(self)
        await node.offer(**changes)
        return node

    async def another(self, credit_qu: int = 1_000_000) -> Principal:
        who = Principal(uuid.uuid4(), frozenset({Scope.USER}))
        await self.db.run(lambda tx: accounts.create_account(tx, "another", account_id=who.account_id))
        await fund(self.db, who.account_id, credit_qu)
        return who

    async def rent(self, node: Renter, *, who: Principal | None = None, key: str = "", **changes: Any) -> RentalView:
        body = RentalBody(**({"listing_id": await node.listing_id(), "seconds": SECONDS} | changes))
        return await rentals.create(self.desk, who or self.consumer, body, key or f"rent-{next(self.numbers)}")

    async def active(self, node: Renter, **changes: Any) -> RentalView:
        """Requested, accepted, and the first nonce answered, all at the same moment."""
        view = await self.rent(node, **changes)
        await node.say_yes(view.rental_id)
        await self.rentals.tick()
        await node.answer(view.rental_id)
        return await self.rental(view.rental_id)

    async def rental(self, rental_id: str, who: Principal | None = None) -> RentalView:
        return await rentals.get(self.desk, who or self.consumer, rental_id)

    async def extend(self, rental_id: str, seconds: int, key: str = "", **changes: Any) -> RentalView:
        body = ExtendBody(seconds=seconds, **changes)
        return await rentals.extend(self.desk, self.consumer, rental_id, body, key or f"more-{next(self.numbers)}")

    async def stop(self, rental_id: str) -> RentalView:
        return await rentals.stop(self.desk, self.consumer, rental_id)

    async def later(self, seconds: float, *, step_s: float = 1.0) -> None:
        """Time passes while coordinators run."""
        left = seconds
        while left > 0:
            self.clock.advance(min(step_s, left))
            left -= step_s
            await self._ticked()
            await self.rentals.tick()

    async def _ticked(self) -> None:
        now_ms = self.desk.now_ms()
        await self.db.run(lambda tx: execute(tx, "UPDATE rental_clock SET ticked_ms = $1", now_ms))
        await self.db.run(lambda tx: execute(tx, "UPDATE engine_clock SET ticked_ms = $1", now_ms))

    async def beats(self, node: Renter, rental_id: str, count: int) -> None:
        """So many nonces asked and answered at once, a beat apart."""
        for _ in range(count):
            await self.later(BEAT_S)
            await node.answer(rental_id)

    async def visible(self) -> int:
        return len(await market.listings(self.db, now_ms=self.desk.now_ms()))

    async def check_rentals(self) -> None:
        """P8, P13, I4, I5, I6: rows, periods, settlements and ledger agree; what is over is spent; what is open has a
        deadline; no time of a device stands twice."""
        for row in await self.db.fetch(
            "SELECT r.*, h.held_qu, h.paid_qu AS h_paid, h.fees_qu AS h_fees, h.returned_qu AS h_returned, h.closed_at,"
            " coalesce((SELECT sum(stop_ms - start_ms) FROM rental_period WHERE rental_id = r.id), 0)::bigint"
            " AS metered,"
            " coalesce((SELECT sum(stop_ms - start_ms) FROM rental_period WHERE rental_id = r.id"
            " AND part IS NOT NULL), 0)::bigint AS settled,"
            " coalesce((SELECT sum(paid_qu) FROM rental_settlement WHERE rental_id = r.id), 0)::bigint AS s_paid,"
            " coalesce((SELECT sum(fee_qu) FROM rental_settlement WHERE rental_id = r.id), 0)::bigint AS s_fee,"
            " l.rental_id AS on_listing"
            " FROM rental r LEFT JOIN hold h ON h.job_id = r.id JOIN listing l ON l.id = r.listing_id"
        ):
            mine = (row["hold_qu"], row["paid_qu"], row["fee_qu"], row["returned_qu"])
            assert mine == (row["held_qu"], row["h_paid"], row["h_fees"], row["h_returned"])
            assert (row["metered"], row["settled"]) == (row["billed_ms"], row["settled_ms"])
            assert (row["s_paid"], row["s_fee"]) == (row["paid_qu"], row["fee_qu"])
            ended = row["state"] == "ended"
            assert (row["closed_at"] is not None) == ended
            assert (row["on_listing"] == row["id"]) or ended
            assert ended == (row["due_ms"] is None)
