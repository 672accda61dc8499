# SPDX-License-Identifier: Apache-2.0
"""Spot checks in the market of disputes_world: a fund that can pay, and others who run it again."""

from typing import Any
from uuid import UUID

from qubix_coordinator.db.database import execute
from qubix_coordinator.jobs.tables import ChainLink
from qubix_coordinator.ledger import rules as ledger
from qubix_coordinator.ledger.post import post
from qubix_coordinator.ledger.read import balance_qu
from qubix_coordinator.ledger.rules import FUND
from qubix_coordinator.market import service as market
from qubix_coordinator.withdrawals import limits
from qubix_coordinator.withdrawals.desk import Desk as WithdrawalDesk
from qubix_protocol.api import JobView
from qubix_protocol.withdrawals import WithdrawableView
from tests.db.disputes_world import FOREIGN_HOLD, DisputesWorld
from tests.db.jobs_world import CREDIT, Node

FUNDED = 100_000


class SpotsWorld(DisputesWorld):
    """A fund that can pay, one provider under test, and others to run it again."""

    others: list[Node]

    async def open(self, credit_qu: int = CREDIT, **settings: Any) -> "SpotsWorld":
        await super().open(credit_qu, **({"spot_day_max_qu": 10**9} | settings))
        return self

    async def fill_fund(self, amount_qu: int = FUNDED) -> "SpotsWorld":
        """By fees that somebody paid."""
        other = UUID(int=77)
        await self.db.run(
            lambda tx: execute(tx, "INSERT INTO account (id, kind, name) VALUES ($1, 'user', 'somebody')", other)
        )
        await self.fund_account(other, amount_qu)
        paid = [
            ledger.hold(FOREIGN_HOLD, other, amount_qu),
            ledger.settle(FOREIGN_HOLD, UUID(int=79), other, 0, amount_qu),
            ledger.fund(amount_qu, "all of it"),
        ]
        await self.db.run(lambda tx: post(tx, paid))
        return self

    async def fund_qu(self) -> int:
        return await self.db.run(lambda tx: balance_qu(tx, FUND))

    async def check_of(self, job: JobView) -> dict[str, Any]:
        (row,) = await self.db.fetch("SELECT * FROM spot_check WHERE job_id = $1", UUID(job.job_id))
        return dict(row)

    async def rerun(self, *, same: bool) -> Node:
        """Whoever was drawn runs the link again, and a verifier compares."""
        await self.later(1)
        (row,) = await self.db.fetch("SELECT * FROM spot_rerun WHERE NOT settled")
        drawn = next(one for one in self.others if one.peer == row["peer_id"])
        await self.engine.tick()
        await drawn.accept()
        attempt = await drawn.attempt()
        ((start, stop),) = attempt.ranges
        await drawn.work(start, stop, 2_500, took_s=2.5)
        await drawn.report()
        await self.check()
        await self.later(1)
        await self.later(1)
        await self.look(same)
        await self.later(1)
        return drawn

    async def with_others(self, count: int) -> "SpotsWorld":
        self.others = [await self.node() for _ in range(count)]
        return self

    async def links(self, attempt_id: UUID) -> list[ChainLink]:
        return await self.db.run(lambda tx: ChainLink.filter(attempt_id=attempt_id).using_db(tx).order_by("index"))

    async def limits(self, node: Node) -> WithdrawableView:
        owner = await self.provider(node)
        desk = WithdrawalDesk(self.db, self.desk.settings, self.desk.clock)
        return await limits.view(desk, owner.account_id)

    async def listed(self, node: Node) -> Any:
        return next(
            one for one in await market.listings(self.db, now_ms=self.desk.now_ms()) if one.provider == node.peer
        )
