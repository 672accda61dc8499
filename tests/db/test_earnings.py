# SPDX-License-Identifier: Apache-2.0
"""What a provider earned, by any calendar, is what the ledger says, and nothing else is."""

import datetime
import itertools
import json
import random
import uuid
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from tortoise.exceptions import BaseORMException

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts.rules import Principal, Scope
from qubix_coordinator.db.database import Database, Tx, execute
from qubix_coordinator.earnings import service, work
from qubix_coordinator.errors import InvalidInput
from qubix_coordinator.ledger import audit, read, rules
from qubix_coordinator.ledger.post import post
from qubix_protocol.earnings import EarningsView, Period, Sums, WorkKind
from tests.db.disputes_world import CheckedWorld
from tests.db.jobs_world import World
from tests.db.rentals_world import RentalWorld
from tests.db.support_http import assembled, make_person
from tests.db.test_disputes import earlier_fees
from tests.support.funds import fund

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Chatham")


class Moved(NamedTuple):
    """One movement of the provider's balance by work, as plain Python adds them up."""

    at: datetime.datetime
    kind: str
    amount_qu: int
    fee_qu: int


def added(moved: Iterable[Moved]) -> Sums:
    found = list(moved)
    settled = [one for one in found if one.kind == "settle"]
    return Sums(
        earned_qu=sum(one.amount_qu for one in settled),
        fee_qu=sum(one.fee_qu for one in settled),
        awarded_qu=sum(one.amount_qu for one in found if one.kind == "refund" and one.amount_qu > 0),
        taken_back_qu=-sum(one.amount_qu for one in found if one.kind == "refund" and one.amount_qu < 0),
        net_qu=sum(one.amount_qu for one in found),
        settlements=len(settled),
    )


def sums(one: Sums) -> Sums:
    return Sums(**{name: getattr(one, name) for name in Sums.__struct_fields__})


def first_day(at: datetime.datetime, by: Period, tz: str) -> datetime.date:
    day = at.astimezone(ZoneInfo(tz)).date()
    if by is Period.WEEK:
        year, week, _ = day.isocalendar()
        return datetime.date.fromisocalendar(year, week, 1)
    return day.replace(day=1) if by is Period.MONTH else day


class Books:
    """A provider's and a consumer's account, and transfers between them at any time of the past: the ledger keeps when
    it posts, so the time of each is written with it, as a restored ledger would."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.moved: list[Moved] = []

    async def open(self) -> "Books":
        async with self.db.transaction() as tx:
            self.provider = await accounts.create_account(tx, "provider")
            self.consumer = await accounts.create_account(tx, "consumer")
        await fund(self.db, self.consumer, 10**12)
        await fund(self.db, self.provider, 10**9)
        return self

    @property
    def who(self) -> Principal:
        return Principal(self.provider, frozenset({Scope.USER}))

    async def settle(self, tx: Tx, at: datetime.datetime, paid_qu: int, fee_qu: int) -> None:
        job, attempt = uuid.uuid4(), uuid.uuid4()
        await post(tx, [rules.hold(job, self.consumer, paid_qu + fee_qu + 5)])
        await self._at(tx, rules.settle(job, attempt, self.provider, paid_qu, fee_qu), at)
        await post(tx, [rules.give_back(job, self.consumer, 5)])
        self.moved.append(Moved(at, "settle", paid_qu, fee_qu))

    async def take_back(self, tx: Tx, at: datetime.datetime, amount_qu: int) -> None:
        await self._at(tx, rules.refund(uuid.uuid4(), rules.user(self.provider), self.consumer, amount_qu), at)
        self.moved.append(Moved(at, "refund", -amount_qu, 0))

    async def _at(self, tx: Tx, transfer: rules.Transfer, at: datetime.datetime) -> None:
        await execute(
            tx,
            "INSERT INTO transfer (id, kind, cause, job_id, digest, posted_at) VALUES ($1, $2, $3, $4, $5, $6)",
            transfer.id,
            transfer.kind.value,
            transfer.cause,
            transfer.job_id,
            bytes(32),
            at,
        )
        await execute(
            tx,
            "INSERT INTO ledger_account (kind, owner) SELECT * FROM unnest($1::text[], $2::uuid[])"
            " ON CONFLICT DO NOTHING",
            [leg.account.kind.value for leg in transfer.legs],
            [leg.account.owner for leg in transfer.legs],
        )
        await execute(
            tx,
            "INSERT INTO entry (transfer_id, account_id, amount_qu)"
            " SELECT $1, a.id, l.amount FROM unnest($2::text[], $3::uuid[], $4::bigint[]) AS l (kind, owner, amount)"
            " JOIN ledger_account a ON a.kind = l.kind AND a.owner IS NOT DISTINCT FROM l.owner",
            transfer.id,
            [leg.account.kind.value for leg in transfer.legs],
            [leg.account.owner for leg in transfer.legs],
            [leg.amount_qu for leg in transfer.legs],
        )

    async def ask(self, by: Period, tz: str, **range_ms: int) -> EarningsView:
        return await service.earnings(self.db, self.who, by=by, tz=tz, **range_ms)


def some_times(count: int, seed: int) -> list[datetime.datetime]:
    """Over three years, many of them about midnights, changes of the clocks and ends of years."""
    draw = random.Random(seed)
    edges = [
        datetime.datetime(2024, 3, 31, 1, tzinfo=datetime.UTC),
        datetime.datetime(2024, 10, 27, 1, tzinfo=datetime.UTC),
        datetime.datetime(2024, 12, 30, tzinfo=datetime.UTC),
        datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        datetime.datetime(2024, 4, 6, 15, tzinfo=datetime.UTC),
    ]
    begin = datetime.datetime(2023, 12, 20, tzinfo=datetime.UTC)
    near = [draw.choice(edges) + datetime.timedelta(seconds=draw.randint(-86_400, 86_400)) for _ in range(count // 2)]
    far = [begin + datetime.timedelta(seconds=draw.randint(0, 3 * 366 * 86_400)) for _ in range(count - count // 2)]
    return near + far


async def filled(db: Database, count: int, seed: int) -> Books:
    books, draw = await Books(db).open(), random.Random(seed)
    async with db.transaction() as tx:
        for at in some_times(count, seed):
            if draw.random() < 0.2:
                await books.take_back(tx, at, draw.randint(1, 1_000))
            else:
                await books.settle(tx, at, draw.randint(0, 10**6) or 1, draw.randint(0, 10**4))
    return books


@pytest.mark.asyncio
async def test_every_calendar_adds_up_as_plain_python_does(db: Database) -> None:
    books = await filled(db, 120, seed=5)
    lines = await db.run(lambda tx: read.statement(tx, books.provider, limit=500))
    in_ledger = sum(line.amount_qu for line in lines if line.kind in ("settle", "refund"))
    for by, tz in itertools.product(Period, ZONES):
        found = await books.ask(by, tz)
        expected: dict[datetime.date, list[Moved]] = defaultdict(list)
        for one in books.moved:
            expected[first_day(one.at, by, tz)].append(one)
        assert [(one.first_day, sums(one)) for one in found.periods] == [
            (day.isoformat(), added(expected[day])) for day in sorted(expected)
        ]
        assert sums(found.whole) == added(books.moved)
        assert found.whole.net_qu == in_ledger
        for one in found.periods:
            day = datetime.date.fromisoformat(one.first_day)
            midnight = datetime.datetime.combine(day, datetime.time(), ZoneInfo(tz))
            assert one.since_ms == midnight.timestamp() * 1000
            assert all(one.since_ms <= moved.at.timestamp() * 1000 < one.until_ms for moved in expected[day])
    assert [one.listing_id for one in found.listings] == [None]
    checked = await audit.audit_now(db)
    assert checked.clean, checked.violations


@pytest.mark.asyncio
async def test_a_range_begins_at_its_moment_and_ends_before_the_other(db: Database) -> None:
    books = await filled(db, 30, seed=6)
    times = sorted({one.at for one in books.moved})
    since, until = times[5], times[-5]
    found = await books.ask(
        Period.MONTH, "UTC", since_ms=round(since.timestamp() * 1000), until_ms=round(until.timestamp() * 1000)
    )
    assert sums(found.whole) == added(one for one in books.moved if since <= one.at < until)
    with pytest.raises(InvalidInput):
        await books.ask(Period.DAY, "UTC", since_ms=5, until_ms=5)


@pytest.mark.asyncio
async def test_any_range_is_the_sum_of_its_movements(db: Database) -> None:
    """Whether it begins and ends at quarters of an hour, at a movement, or anywhere; also within one quarter."""
    books = await filled(db, 60, seed=7)
    draw = random.Random(7)
    times = [round(one.at.timestamp() * 1000) for one in books.moved]
    quarter_ms = 900_000
    moments = [
        *draw.sample(times, 8),
        *(time - time % quarter_ms for time in draw.sample(times, 4)),
        *(time + draw.randint(1, quarter_ms) for time in draw.sample(times, 4)),
    ]
    for since, until in itertools.combinations(sorted(set(moments)), 2):
        within = [one for one in books.moved if since <= one.at.timestamp() * 1000 < until]
        found = await books.ask(Period.DAY, "Asia/Kathmandu", since_ms=since, until_ms=until)
        assert sums(found.whole) == added(within)
        assert sum(one.net_qu for one in found.periods) == found.whole.net_qu


@pytest.mark.asyncio
async def test_a_view_reads_no_settlement(db: Database) -> None:
    """By PostgreSQL's own account of what it read: parts alone, and one for a quarter of an hour however many there
    were in it."""
    books = await Books(db).open()
    at = datetime.datetime(2025, 5, 5, 12, 1, tzinfo=datetime.UTC)
    async with db.transaction() as tx:
        for second in range(60):
            await books.settle(tx, at + datetime.timedelta(seconds=second), 10, 1)
    told = await db.fetch_value(
        f"EXPLAIN (ANALYZE, FORMAT JSON) {service._GROUPED}", books.provider, 0, 10**14, "day", "Europe/Berlin"
    )
    read_rows: dict[str, int] = defaultdict(int)

    def walk(node: dict[str, Any]) -> None:
        read_rows[node.get("Relation Name", "")] += node["Actual Rows"] * node["Actual Loops"]
        for child in node.get("Plans", ()):
            walk(child)

    walk(json.loads(told)[0]["Plan"])
    assert read_rows["earnings_part"] == 1
    assert read_rows["entry"] == read_rows["transfer"] == 0
    assert sums((await books.ask(Period.DAY, "Europe/Berlin")).whole) == added(books.moved)


@pytest.mark.asyncio
async def test_the_parts_are_kept_by_the_ledger_alone_and_audited(db: Database) -> None:
    books = await filled(db, 20, seed=8)
    with pytest.raises((asyncpg.PostgresError, BaseORMException), match="posting triggers alone"):
        await db.run(lambda tx: execute(tx, "UPDATE earnings_part SET earned_qu = earned_qu + 1"))
    checked = await audit.audit_all_now(db, 0)
    assert "I3-earnings" in {check.id for check in checked.checks}
    assert not [one for one in checked.violations if one.check == "I3-earnings"]
    async with db.transaction() as tx:
        await execute(tx, "ALTER TABLE earnings_part DISABLE TRIGGER earnings_part_kept")
        await execute(tx, "UPDATE earnings_part SET fee_qu = fee_qu + 1")
    spoilt = await audit.audit_all_now(db, 0)
    assert [one for one in spoilt.violations if one.check == "I3-earnings"]
    assert books.moved


@pytest.mark.asyncio
@pytest.mark.parametrize("tz", ["Europe/Nowhere", "CEST", "UTC+3", "'; DROP TABLE entry; --", "posix"])
async def test_a_time_zone_is_an_iana_name(db: Database, tz: str) -> None:
    books = await Books(db).open()
    with pytest.raises(InvalidInput) as refused:
        await books.ask(Period.DAY, tz)
    assert refused.value.field == "tz"


async def provider_of(world: World, peer: str) -> Principal:
    owner = await world.db.run(lambda tx: accounts.account_of_node(tx, peer))
    return Principal(owner, frozenset({Scope.USER}))


@pytest.mark.asyncio
async def test_jobs_and_rentals_are_earnings_of_their_device_and_work_of_its_owner(db: Database) -> None:
    world = RentalWorld(db)
    await world.open()
    node = await world.renter()
    job = await world.assigned()
    await node.whole_job()
    await world.check()
    rental = await world.active(node)
    await world.beats(node, rental.rental_id, 4)
    await world.stop(rental.rental_id)
    who = await provider_of(world, node.peer)
    found = await service.earnings(db, who, by=Period.DAY)
    balance_qu = await world.balance_qu(who.account_id)
    assert found.whole.net_qu == found.whole.earned_qu == balance_qu > 0
    (device,) = found.listings
    assert (device.listing_id, device.provider) == (await node.listing_id(), node.peer)
    assert sums(device) == sums(found.whole)
    done = (await work.work(db, who)).work
    assert [(one.kind, one.rental_id, one.job_id) for one in done] == [
        (WorkKind.RENTAL, rental.rental_id, None),
        (WorkKind.JOB, None, job.job_id),
    ]
    assert sum(one.paid_qu for one in done) == balance_qu
    assert sum(one.fee_qu for one in done) == found.whole.fee_qu
    assert all(one.ended_ms is not None and one.billed_ms > 0 for one in done)
    assert (await work.work(db, world.consumer)).work == ()
    assert (await service.earnings(db, world.consumer, by=Period.DAY)).periods == ()


@pytest.mark.asyncio
async def test_pages_of_work_hold_each_once_though_more_comes(db: Database) -> None:
    world = RentalWorld(db)
    await world.open()
    node = await world.renter()
    who = await provider_of(world, node.peer)
    made = []
    for _ in range(5):
        rental = await world.active(node, seconds=10)
        await world.stop(rental.rental_id)
        made.append(rental.rental_id)
    pages, after = [], None
    while True:
        page = await work.work(db, who, after=after, limit=2)
        pages.append([one.work_id for one in page.work])
        after = page.next
        if after is None:
            break
        world.clock.advance(1)
        await world.stop((await world.active(node, seconds=10)).rental_id)
    assert sorted(itertools.chain(*pages)) == sorted(made)
    assert [len(page) for page in pages] == [2, 2, 1]


@pytest.mark.asyncio
async def test_what_a_decision_takes_back_is_no_earning_of_its_device(db: Database) -> None:
    world = await CheckedWorld(db).open()
    node = await world.node()
    job = await world.assigned()
    await node.whole_job()
    await world.check()
    owner = await provider_of(world, node.peer)
    before = await service.earnings(db, owner, by=Period.DAY)
    conceded = await world.answered(await world.opened(job.job_id), owner, concede=True)
    taken_qu = conceded.awarded_from["provider"]
    found = await service.earnings(db, owner, by=Period.DAY)
    (device,) = found.listings
    assert (device.provider, device.earned_qu, device.taken_back_qu) == (node.peer, before.whole.earned_qu, taken_qu)
    assert found.whole.net_qu == before.whole.net_qu - taken_qu == await node.earned_qu()
    assert (await work.work(db, owner)).work[0].taken_back_qu == taken_qu > 0
    received = await service.earnings(db, world.consumer, by=Period.DAY)
    assert sums(received.whole) == added([]), "what a consumer gets back was not earned"
    await world.clean()


@pytest.mark.asyncio
async def test_what_a_provider_wins_in_a_dispute_is_earned(db: Database) -> None:
    world = await CheckedWorld(db).open(fund_bps=10_000)
    await earlier_fees(world)
    node = await world.node()
    job = await world.assigned()
    await node.whole_job()
    await world.check([False] * 4)
    await world.cancel(job.job_id)
    owner = await provider_of(world, node.peer)
    await world.fund_account(owner.account_id, 100)
    dispute = await world.opened(job.job_id, owner)
    await world.later(world.desk.settings.dispute_answer_s)
    await world.later(1)
    await world.look(True)
    await world.later(world.desk.settings.dispute_judge_s)
    award_qu = (await world.seen(dispute, owner)).award_qu
    found = await service.earnings(db, owner, by=Period.DAY)
    assert (found.whole.awarded_qu, found.whole.net_qu, found.whole.earned_qu) == (award_qu, award_qu, 0)
    assert found.whole.net_qu + 100 == await node.earned_qu(), "the bond came back and is no earning"


@pytest.mark.asyncio
async def test_over_http(db: Database, tmp_path: Path) -> None:
    person = await make_person(db)
    client = (await assembled(db, tmp_path)).app.test_client()
    answer = await client.get("/api/v1/account/earnings?by=week&tz=Europe/Berlin", headers=person.headers)
    assert (answer.status_code, (await answer.get_json())["whole"]["net_qu"]) == (200, 0)
    for query in ("by=year", "tz=Nowhere", "since=9&until=3", "until=x"):
        refused = await client.get(f"/api/v1/account/earnings?{query}", headers=person.headers)
        assert refused.status_code == 422, query
    answer = await client.get("/api/v1/account/work", headers=person.headers)
    assert (await answer.get_json()) == {"work": [], "next": None}
    assert (await client.get("/api/v1/account/work?after=1.x", headers=person.headers)).status_code == 422
