# SPDX-License-Identifier: Apache-2.0
"""Disputes in the market of unchecked_world, driven by hand: sides, arbiters, re-runners, a clock that stands still."""

import dataclasses
import uuid
from typing import Any
from uuid import UUID

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts.rules import Principal, Scope
from qubix_coordinator.db.database import execute
from qubix_coordinator.deposits import reserves
from qubix_coordinator.disputes import service as disputes
from qubix_coordinator.disputes.engine import Engine
from qubix_coordinator.jobs import service as jobs
from qubix_coordinator.jobs import verify
from qubix_coordinator.ledger import rules as ledger
from qubix_coordinator.ledger.audit import audit_all
from qubix_coordinator.ledger.post import post
from qubix_coordinator.spots.engine import Engine as SpotsEngine
from qubix_protocol.api import JobView
from qubix_protocol.disputes import AnswerBody, DecisionBody, DisputeBody, DisputeView, EvidenceBody
from tests.db.jobs_world import CannotNow, Node, World
from tests.db.unchecked_world import UncheckedWorld

FOREIGN_HOLD = UUID(int=78)
"""Of no job: where tests get fees from."""


class Hands(World):
    """What both kinds of jobs share; mixed into a world."""

    disputes: Engine
    spots: SpotsEngine
    arbiters: list[Principal]

    def settle_down(self, **settings: Any) -> None:
        """Without spot checks, unless the settings say so."""
        given = {"spot_day_max_qu": 0} | settings
        self.desk = dataclasses.replace(self.desk, settings=dataclasses.replace(self.desk.settings, **given))
        self.engine._desk = self.desk
        self.disputes, self.spots = Engine(self.desk), SpotsEngine(self.desk)

    async def with_arbiters(self) -> None:
        self.arbiters = []
        for number in range(3):
            account = await self.db.run(lambda tx, n=number: accounts.create_account(tx, f"arbiter {n}"))  # type: ignore[misc]
            self.arbiters.append(Principal(account, frozenset({Scope.ARBITER})))

    async def receipt(self, job_id: str) -> bytes:
        """Of re-runs, too, which are the market's own."""
        owner = Principal((await self.row(UUID(job_id))).account_id, frozenset({Scope.USER}))
        return (await jobs.receipt(self.desk, owner, job_id)).receipt.encode()

    async def provider(self, node: Node) -> Principal:
        owner = await self.db.run(lambda tx: accounts.account_of_node(tx, node.peer))
        return Principal(owner, frozenset({Scope.USER}))

    async def fund_account(self, account_id: UUID, amount_qu: int) -> None:
        paid = ledger.deposit(account_id, amount_qu, network="devnet", tick=1, tx_id=uuid.uuid4().hex, output=0)
        await self.db.run(lambda tx: post(tx, [paid]))

    async def pass_time(self, seconds: float, *, step_s: float = 1.0) -> None:
        for _ in range(round(seconds / step_s) if seconds else 0):
            self.clock.advance(step_s)
            await self.db.run(lambda tx: execute(tx, "UPDATE engine_clock SET ticked_ms = $1", self.desk.now_ms()))
            await self.engine.tick()
            await self.disputes.tick()
            await self.spots.tick()

    async def later(self, seconds: float) -> None:
        await self.pass_time(seconds, step_s=seconds)

    async def opened(self, job: JobView | str, who: Principal | None = None, **changes: Any) -> DisputeView:
        key = job if isinstance(job, str) else job.job_id
        body = DisputeBody(**({"job_id": key, "statement": "the numbers are made up"} | changes))
        return await disputes.open_dispute(self.desk, who or self.consumer, body)

    async def seen(self, dispute: DisputeView, who: Principal | None = None) -> DisputeView:
        return await disputes.get(self.desk, who or self.consumer, UUID(dispute.dispute_id))

    async def answered(self, dispute: DisputeView, who: Principal, **changes: Any) -> DisputeView:
        body = AnswerBody(**({"statement": "they are right"} | changes))
        return await disputes.answer(self.desk, who, UUID(dispute.dispute_id), body)

    async def stated(self, dispute: DisputeView, who: Principal, text: str = "look at row 3") -> DisputeView:
        return await disputes.evidence(self.desk, who, UUID(dispute.dispute_id), EvidenceBody(statement=text))

    async def withdrawn(self, dispute: DisputeView, who: Principal | None = None) -> DisputeView:
        return await disputes.withdraw(self.desk, who or self.consumer, UUID(dispute.dispute_id))

    async def decided(self, dispute: DisputeView, award_qu: int, arbiter: int = 0) -> DisputeView:
        body = DecisionBody(award_qu=award_qu, reason="as the evidence says")
        return await disputes.decide(self.desk, self.arbiters[arbiter], UUID(dispute.dispute_id), body)

    async def look(self, accepted: bool, *, carried_out: bool = True) -> verify.Claim:
        """The verifier's turn at a second look."""
        claim = await self.db.run(lambda tx: verify.claim(tx, "verifier", self.desk.now_ms()))
        if claim is None or claim.look_id is None:
            raise CannotNow("nothing waits for a second look")
        finding = verify.Finding(
            carried_out=carried_out,
            accepted=accepted and carried_out,
            reason="same" if accepted else "differs",
            detail="",
            parts=(accepted,) * len(claim.outputs),
            seed=bytes(32),
            check_ms=3,
        )
        assert await self.db.run(lambda tx: verify.record_for(tx, claim, "verifier", finding, self.desk.now_ms()))
        await self.later(1)
        return claim

    async def counted(self) -> dict[str, int]:
        """What is published as each one's own (M10): together all that came in from the world, no more and no less."""
        owned = {row["owner"]: int(row["amount_qu"]) for row in await self.db.fetch(reserves.OWNED)}
        assert min(owned.values()) >= 0
        came_qu = await self.db.fetch_value("SELECT -balance_qu FROM ledger_balance WHERE kind = 'world'")
        assert sum(owned.values()) == came_qu
        return owned

    async def clean(self) -> None:
        """I1 to I5, M10, and of every dispute: awards within stake and hold, no bond left once all is over."""
        await self.spots.tick()
        await self.check_money()
        report = await self.db.run(lambda tx: audit_all(tx, self.desk.now_ms()))
        # Accounts are filled and emptied here without a chain: what the chain would have to say is not asked.
        asked = [
            one for one in report.violations if not one.check.startswith(("I8", "I9")) and "withdraw" not in one.what
        ]
        found = [one for one in asked if str(FOREIGN_HOLD) not in one.what]
        assert not found, found
        assert not {one.check for one in report.unknown} & {
            "I4-bond",
            "I5-award",
            "I5-forfeit",
            "I5-spot",
            "I6-dispute",
            "I5-job",
            "I6-job",
            "I6-spot",
        }
        await self.counted()
        for row in await self.db.fetch(
            "SELECT d.*, j.cap_qu, coalesce(b.balance_qu, 0) AS bond_left FROM dispute d JOIN job j ON j.id = d.job_id"
            " LEFT JOIN ledger_balance b ON b.kind = 'bond' AND b.owner = d.id"
        ):
            paid = row["from_hold_qu"] + row["from_provider_qu"] + row["from_fees_qu"] + row["from_fund_qu"]
            assert paid <= row["award_qu"] <= row["stake_qu"] <= row["cap_qu"]
            if row["state"] == "resolved" and row["rerun_settled"]:
                assert row["bond_left"] == 0
            elif row["rerun_settled"]:
                assert row["bond_left"] == row["bond_qu"] + row["answer_bond_qu"] - row["rerun_cost_qu"]


class DisputesWorld(Hands, UncheckedWorld):
    async def open(self, credit_qu: int = 1_000_000, **settings: Any) -> "DisputesWorld":
        await super().open(credit_qu)
        self.settle_down(**settings)
        await self.with_arbiters()
        return self


class CheckedWorld(Hands):
    """Of jobs of `matmul`, which has a verifier."""

    async def open(self, credit_qu: int = 1_000_000, **settings: Any) -> "CheckedWorld":
        await super().open(credit_qu)
        self.settle_down(**settings)
        await self.with_arbiters()
        return self
