# SPDX-License-Identifier: Apache-2.0
"""Random histories on the real database beside a model of a few dictionaries: no divergence, and a clean audit.

The model knows nothing of SQL: it is what the words hold, settle, return and refund mean. Histories share a database,
fees and world, and have users and jobs of their own; a step is one transaction, posted once, posted again, or posted
with another body.
"""

import asyncio
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Database
from qubix_coordinator.errors import CauseReused, HoldOverspent, LedgerRefused, NotEnoughBalance
from qubix_coordinator.ledger import read, rules
from qubix_coordinator.ledger.audit import audit_now
from qubix_coordinator.ledger.post import post
from tests.support.funds import tx_id
from tests.support_pg import PgServer, connected

USERS = 4
STEPS = 100
Outcome = type[Exception] | None
amounts = st.integers(1, 60) | st.integers(1, 5000)
users = st.integers(0, USERS - 1)
picks = st.integers(0, 10_000)


@dataclass
class ModelHold:
    payer: int
    held: int
    paid: int = 0
    fees: int = 0
    returned: int = 0

    @property
    def left(self) -> int:
        return self.held - self.paid - self.fees - self.returned


class Model:
    """Raises what the ledger must raise, and then changes nothing."""

    def __init__(self, fees: int, world: int) -> None:
        self.balance = [0] * USERS
        self.holds: dict[uuid.UUID, ModelHold] = {}
        self.fees_swept, self.fees_pending = fees, 0
        self.world = world

    def credit(self, user: int, amount: int) -> None:
        self.balance[user] += amount
        self.world -= amount

    def hold(self, job: uuid.UUID, user: int, amount: int) -> None:
        known = self.holds.get(job)
        if self.balance[user] < amount:
            raise NotEnoughBalance("")
        if known is not None and (known.left == 0 or known.payer != user):
            raise LedgerRefused("")
        self.balance[user] -= amount
        if known is None:
            self.holds[job] = ModelHold(user, amount)
        else:
            known.held += amount

    def settle(self, job: uuid.UUID, provider: int, paid: int, fee: int) -> None:
        found = self.holds[job]
        if paid + fee > found.left:
            raise HoldOverspent("")
        found.paid += paid
        found.fees += fee
        self.balance[provider] += paid
        self.fees_pending += fee

    def give_back(self, job: uuid.UUID, user: int, amount: int) -> None:
        found = self.holds[job]
        if amount > found.left:
            raise HoldOverspent("")
        if user != found.payer:
            raise LedgerRefused("")
        found.returned += amount
        self.balance[user] += amount

    def refund(self, payer: int | None, user: int, amount: int) -> None:
        if (self.fees_swept if payer is None else self.balance[payer]) < amount:
            raise NotEnoughBalance("")
        if payer is None:
            self.fees_swept -= amount
        else:
            self.balance[payer] -= amount
        self.balance[user] += amount

    def sweep(self) -> None:
        self.fees_swept += self.fees_pending
        self.fees_pending = 0


class Ledger(RuleBasedStateMachine):
    runner: asyncio.Runner
    db: Database
    operations = 0
    counter = 0

    @initialize()
    def open(self) -> None:
        self.posted: list[rules.Transfer] = []
        self.ids, self.model = self.runner.run(self._open())

    async def _open(self) -> tuple[list[uuid.UUID], Model]:
        async with self.db.transaction() as tx:
            while await read.sweep(tx):
                pass
            fees, world = await read.balance_qu(tx, rules.FEES), await read.balance_qu(tx, rules.WORLD)
            return [await accounts.create_account(tx, f"user {n}") for n in range(USERS)], Model(fees, world)

    def new_id(self) -> uuid.UUID:
        Ledger.counter += 1
        return uuid.UUID(int=Ledger.counter)

    def job(self, pick: int) -> uuid.UUID | None:
        jobs = list(self.model.holds)
        return jobs[pick % len(jobs)] if jobs else None

    def both(self, transfer: rules.Transfer, expected: Outcome) -> None:
        """The ledger must do to the transfer what the model did."""
        Ledger.operations += 1
        if expected is not None:
            with pytest.raises(expected):
                self.runner.run(self.db.run(lambda tx: post(tx, [transfer])))
            return
        assert self.runner.run(self.db.run(lambda tx: post(tx, [transfer]))) == 1
        self.posted.append(transfer)

    @rule(user=users, amount=amounts)
    def credit(self, user: int, amount: int) -> None:
        transfer = rules.deposit(
            self.ids[user], amount, network="devnet", tick=1, tx_id=tx_id(str(self.new_id())), output=0
        )
        self.both(transfer, outcome(lambda: self.model.credit(user, amount)))

    @rule(user=users, amount=amounts)
    def hold(self, user: int, amount: int) -> None:
        job = self.new_id()
        self.both(rules.hold(job, self.ids[user], amount), outcome(lambda: self.model.hold(job, user, amount)))

    @rule(pick=picks, user=users, amount=amounts)
    def hold_more(self, pick: int, user: int, amount: int) -> None:
        job = self.job(pick)
        if job is not None:
            part = self.new_id().int
            transfer = rules.hold(job, self.ids[user], amount, part=part)
            self.both(transfer, outcome(lambda: self.model.hold(job, user, amount)))

    @rule(pick=picks, provider=users, amount=amounts, fee_bps=st.sampled_from([0, 1, 250, 10_000]))
    def settle(self, pick: int, provider: int, amount: int, fee_bps: int) -> None:
        job = self.job(pick)
        if job is not None:
            paid, fee = rules.split_fee(amount, fee_bps)
            transfer = rules.settle(job, self.new_id(), self.ids[provider], paid, fee)
            self.both(transfer, outcome(lambda: self.model.settle(job, provider, paid, fee)))

    @rule(pick=picks, user=users, amount=amounts, rest=st.booleans())
    def give_back(self, pick: int, user: int, amount: int, rest: bool) -> None:
        job = self.job(pick)
        if job is not None:
            found = self.model.holds[job]
            if rest and found.left:
                user, amount = found.payer, found.left
            part = self.new_id().int
            transfer = rules.give_back(job, self.ids[user], amount, part=part)
            self.both(transfer, outcome(lambda: self.model.give_back(job, user, amount)))

    @rule(payer=st.none() | users, user=users, amount=amounts)
    def refund(self, payer: int | None, user: int, amount: int) -> None:
        if payer != user:
            source = rules.FEES if payer is None else rules.user(self.ids[payer])
            transfer = rules.refund(self.new_id(), source, self.ids[user], amount)
            self.both(transfer, outcome(lambda: self.model.refund(payer, user, amount)))

    @rule(pick=picks)
    def again(self, pick: int) -> None:
        if self.posted:
            Ledger.operations += 1
            transfer = self.posted[pick % len(self.posted)]
            assert self.runner.run(self.db.run(lambda tx: post(tx, [transfer]))) == 0

    @rule(pick=picks, more=st.integers(1, 100))
    def again_with_another_body(self, pick: int, more: int) -> None:
        if self.posted:
            Ledger.operations += 1
            transfer = self.posted[pick % len(self.posted)]
            first, second, *rest = transfer.legs
            legs = (
                first._replace(amount_qu=first.amount_qu - more),
                second._replace(amount_qu=second.amount_qu + more),
            )
            with pytest.raises(CauseReused):
                self.runner.run(self.db.run(lambda tx: post(tx, [replace(transfer, legs=(*legs, *rest))])))

    @rule()
    def sweep(self) -> None:
        Ledger.operations += 1
        self.runner.run(self.db.run(read.sweep))
        self.model.sweep()

    @invariant()
    def agree(self) -> None:
        if hasattr(self, "model"):
            self.runner.run(self._agree())

    async def _agree(self) -> None:
        found = await self.db.fetch(
            "SELECT kind, owner, balance_qu FROM ledger_balance WHERE owner IS NULL OR owner = ANY ($1)",
            [*self.ids, *self.model.holds],
        )
        balances = {(row["kind"], row["owner"]): row["balance_qu"] for row in found}
        assert [balances.get(("user", who), 0) for who in self.ids] == self.model.balance
        assert balances.get(("fees", None), 0) == self.model.fees_swept + self.model.fees_pending
        assert balances.get(("world", None), 0) == self.model.world
        held = {owner: qu for (kind, owner), qu in balances.items() if kind == "hold"}
        assert held == {job: hold.left for job, hold in self.model.holds.items()}
        rows = await self.db.fetch(
            "SELECT job_id, held_qu, paid_qu, fees_qu, returned_qu, closed_at IS NOT NULL AS closed FROM hold"
            " WHERE job_id = ANY ($1)",
            list(self.model.holds),
        )
        assert {tuple(row.values()) for row in rows} == {
            (job, h.held, h.paid, h.fees, h.returned, h.left == 0) for job, h in self.model.holds.items()
        }

    def teardown(self) -> None:
        report = self.runner.run(audit_now(self.db))
        assert report.clean, report.violations


def outcome(change: Callable[[], None]) -> Outcome:
    """What the model makes of a change: None when it was done, else the refusal."""
    try:
        change()
    except (NotEnoughBalance, HoldOverspent, LedgerRefused) as refusal:
        return type(refusal)
    return None


@pytest.fixture
def machine(pg_server: PgServer) -> Iterator[type[Ledger]]:
    with asyncio.Runner() as runner:
        database = connected(pg_server)
        Ledger.runner, Ledger.operations = runner, 0
        Ledger.db = runner.run(database.__aenter__())
        try:
            yield Ledger
        finally:
            runner.run(database.__aexit__(None, None, None))


def tell(machine: type[Ledger], examples: int, operations: int) -> None:
    chosen = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=chosen)
    assert machine.operations >= operations


def test_random_histories_agree_with_the_model(machine: type[Ledger]) -> None:
    tell(machine, 25, 1_000)


@pytest.mark.slow
def test_many_random_histories_agree_with_the_model(machine: type[Ledger]) -> None:
    tell(machine, 400, 15_000)
