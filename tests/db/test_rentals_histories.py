# SPDX-License-Identifier: Apache-2.0
"""Whatever becomes of rentals, in seeded random order, with replicas and races: the meter bills only answered time, the
money adds up, everything ends (trust M1, M5, M9, I1–I7). A failure names its seed."""

import asyncio
import contextlib
import itertools
import random
from uuid import UUID

import pytest

from qubix_coordinator.db.database import Database
from qubix_coordinator.errors import QubixError
from qubix_coordinator.ledger.audit import audit
from qubix_coordinator.rentals import service as rentals
from qubix_coordinator.rentals.engine import look_after
from qubix_protocol.messages import RentalAccept, RentalBeat
from qubix_protocol.rentals import RentalView
from qubix_protocol.states import RentalState
from tests.db.jobs_world import CannotNow
from tests.db.rentals_world import RATE, RentalWorld

pytestmark = pytest.mark.asyncio
EVENTS = {
    "beat": 14,
    "answer": 6,
    "replay": 2,
    "seconds": 6,
    "minute": 1,
    "rent": 3,
    "yes": 4,
    "no": 0.3,
    "extend": 2,
    "notice": 0.5,
    "lost": 0.2,
    "stop": 0.7,
    "settle": 2,
    "race": 3,
    "outage": 1,
    "crash": 2,
}
STEPS = 60


class Crash(Exception):
    """The coordinator died before it could commit."""


class History:
    """One device, its renters, and what was answered in truth."""

    def __init__(self, world: RentalWorld, seed: int) -> None:
        self.world, self.seed, self.draw = world, seed, random.Random(seed)
        self.used: list[bytes] = []
        self.answered: dict[str, list[int]] = {}
        self.extra = 0

    async def run(self) -> None:
        self.node = await self.world.renter(rate_qu_per_h=self.draw.choice([0, 999, RATE // 1000, RATE]))
        for word in self.draw.choices(list(EVENTS), list(EVENTS.values()), k=STEPS):
            with contextlib.suppress(QubixError, CannotNow):
                await getattr(self, f"_{word}")()
            await self._look()
        await self.world.later(300, step_s=20)
        for view in await self._all():
            if view.state is not RentalState.ENDED:
                await self.world.later(200 + self.extra, step_s=20)
        await self._look()
        assert all(view.state is RentalState.ENDED for view in await self._all()), self.seed
        assert (await self.world.db.run(audit)).clean, self.seed

    async def _all(self) -> tuple[RentalView, ...]:
        return (await rentals.list_rentals(self.world.desk, self.world.consumer, limit=200)).rentals

    async def _current(self) -> RentalView:
        found = [one for one in await self._all() if one.state is not RentalState.ENDED]
        if not found:
            raise CannotNow("nothing is rented")
        return found[0]

    async def _look(self) -> None:
        await self.world.check_rentals()
        for view in await self._all():
            told = self.answered.get(view.rental_id, [])
            reach_ms = 15_000
            proven = sum(b - a for a, b in itertools.pairwise(told) if b - a < reach_ms)
            assert view.billed_ms <= proven, self.seed
            assert view.hold_qu == view.held_qu + view.paid_qu + view.fee_qu + view.returned_qu, self.seed

    # What may happen -------------------------------------------------------------------------------------------------

    async def _rent(self) -> None:
        cap = self.draw.choice([None, None, 20_000])
        await self.world.rent(self.node, seconds=self.draw.choice([10, 60, 180]), cap_qu=cap)

    async def _yes(self) -> None:
        await self.node.say_yes((await self._current()).rental_id)

    async def _no(self) -> None:
        await self.node.say_no((await self._current()).rental_id)

    async def _beat(self) -> None:
        view = await self._current()
        if view.state is RentalState.REQUESTED:
            await self.node.say_yes(view.rental_id)
        await self.world.later(5)
        await self._answer()

    async def _answer(self) -> None:
        view = await self._current()
        nonce = await self.node.nonce(view.rental_id)
        await self.node.answer(view.rental_id, nonce)
        self.used.append(nonce)
        self.answered.setdefault(view.rental_id, []).append(self.world.desk.now_ms())

    async def _replay(self) -> None:
        if self.used:
            await self.node.answer((await self._current()).rental_id, self.draw.choice(self.used))

    async def _seconds(self) -> None:
        await self.world.later(self.draw.choice([1, 3, 9]))

    async def _minute(self) -> None:
        await self.world.later(self.draw.choice([16, 70]), step_s=4)

    async def _extend(self) -> None:
        seconds = self.draw.choice([10, 60])
        await self.world.extend((await self._current()).rental_id, seconds)
        self.extra += seconds

    async def _notice(self) -> None:
        await self.node.notice((await self._current()).rental_id, self.draw.choice([0, 20, 700]))

    async def _lost(self) -> None:
        await self.node.notice((await self._current()).rental_id, 0, device_lost=True)

    async def _stop(self) -> None:
        await self.world.stop((await self._current()).rental_id)

    async def _settle(self) -> None:
        view = self.draw.choice(await self._all() or [await self._current()])
        await rentals.settle(self.world.desk, _uuid(view))

    async def _outage(self) -> None:
        """Nobody ticks; then two replicas begin at once."""
        self.world.clock.advance(self.draw.choice([4, 40, 400]))
        await asyncio.gather(self.world.rentals.tick(), self.world.rentals.tick())

    async def _race(self) -> None:
        """Two replicas, the consumer, a stranger and the node at the same moment."""
        view = await self._current()
        world, rival = self.world, self.draw.choice([self._stop, self._extend, self._rent])
        self.world.clock.advance(self.draw.choice([0, 5, 61]))
        tasks = [world.rentals.tick(), world.rentals.tick(), rentals.settle(world.desk, _uuid(view)), rival()]
        with contextlib.suppress(CannotNow):
            beat = RentalBeat(rental_id=view.rental_id, nonce=await self.node.nonce(view.rental_id))
            self.answered.setdefault(view.rental_id, []).append(world.desk.now_ms())
            tasks += [rentals.on_beat(world.desk, self.node.peer, beat) for _ in range(2)]
        for done in await asyncio.gather(*tasks, return_exceptions=True):
            assert not isinstance(done, BaseException) or isinstance(done, QubixError | CannotNow), (self.seed, done)

    async def _crash(self) -> None:
        """A step that was done and never committed; then it is done again."""
        view = await self._current()
        self.world.clock.advance(self.draw.choice([1, 6, 61]))

        async def step(tx: object) -> None:
            await look_after(self.world.desk, tx, _uuid(view))  # type: ignore[arg-type]
            raise Crash

        with contextlib.suppress(Crash):
            await self.world.db.run(step)
        await self._look()
        await rentals.on_accept(self.world.desk, self.node.peer, RentalAccept(rental_id=view.rental_id))
        await self.world.rentals.tick()


def _uuid(view: RentalView) -> UUID:
    return UUID(view.rental_id)


@pytest.mark.parametrize("seed", range(2))
async def test_a_history_of_rentals_ends_with_its_money_right(db: Database, seed: int) -> None:
    await History(await RentalWorld(db).open(credit_qu=10_000_000), seed).run()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 40))
async def test_more_histories_of_rentals_end_with_their_money_right(db: Database, seed: int) -> None:
    await History(await RentalWorld(db).open(credit_qu=10_000_000), seed).run()
