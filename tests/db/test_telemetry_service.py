# SPDX-License-Identifier: Apache-2.0
"""Samples are kept once, whatever is sent twice, by whom, and not for ever; nobody waits for them."""

import asyncio
import itertools
import math
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

import asyncpg
import msgspec
import pytest

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db import migrations
from qubix_coordinator.db.database import Database, Tx, execute, plain_connection, rows, value
from qubix_coordinator.errors import Unavailable
from qubix_coordinator.market import service as market
from qubix_coordinator.telemetry import copying, partitions, rules, service
from qubix_coordinator.telemetry.ingest import Fate, Ingest
from qubix_coordinator.telemetry.partitions import SAMPLES
from qubix_coordinator.telemetry.rules import Said
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Device, DeviceSample, Offer, Sample, Telemetry
from qubix_protocol.states import Availability, DeviceKind
from qubix_protocol.units import READINGS_MAX
from tests.support_pg import PgServer, fresh_database

NOW = 1_700_000_000_000
DAY_S = 86_400


def telemetry(*readings: tuple[str, int, float | None]) -> Telemetry:
    return Telemetry(
        samples=tuple(
            DeviceSample(device_id=device, sample=Sample(at_ms=at, utilisation_pct=used, power_mw=1_000))
            for device, at, used in readings
        )
    )


async def enrolled(db: Database, *devices: str) -> str:
    """A node with these devices in the market."""
    key = SigningKey.generate()
    await db.run(lambda tx: accounts.ensure_node(tx, key.peer_id))
    for device_id in devices or ("a", "b"):
        device = Device(device_id=device_id, kind=DeviceKind.CPU, model="x", memory_bytes=1, backends=("cpu",))
        offer = Offer(device=device, rate_qu_per_h=1, region="", availability=Availability.AVAILABLE)
        await market.offer_received(db, key.peer_id, offer, b"offer", now_ms=NOW)
    return key.peer_id


class Desk:
    """An ingest that is flushed by hand."""

    def __init__(self, db: Database, **more: Any) -> None:
        self.told: list[Mapping[tuple[str, str], Said]] = []
        self.fates: Counter[Fate] = Counter()
        self.ingest = Ingest(db, self._tell, lambda fate, times: self.fates.update({fate: times}), **more)

    async def _tell(self, newest: Mapping[tuple[str, str], Said]) -> None:
        self.told.append(newest)

    async def record(self, peer: str, message: Telemetry, now_ms: int = NOW) -> None:
        self.ingest.offer(peer, message, now_ms)
        await self.ingest.flush()


async def kept(db: Database) -> int:
    return int(await db.fetch_value("SELECT count(*) FROM sample"))


@pytest.mark.asyncio
async def test_samples_are_kept_once_and_the_newest_told(db: Database) -> None:
    peer, desk = await enrolled(db), Desk(db)
    message = telemetry(("a", NOW - 2, 1.0), ("b", NOW - 1, None), ("a", NOW, 3.0))
    await desk.record(peer, message)
    assert [{key: one.sample.at_ms for key, one in newest.items()} for newest in desk.told] == [
        {(peer, "a"): NOW, (peer, "b"): NOW - 1}
    ]
    await desk.record(peer, message, NOW + 5)
    series = await service.series(db, peer, "a", since_ms=NOW - 60_000, now_ms=NOW)
    assert [(one.at_ms, one.utilisation_pct, one.power_mw) for one in series] == [
        (NOW - 2, 1.0, 1_000),
        (NOW, 3.0, 1_000),
    ]
    (other,) = await service.series(db, peer, "b", since_ms=NOW - 60_000, now_ms=NOW)
    assert other.utilisation_pct is None
    assert desk.fates == {Fate.KEPT: 3, Fate.TWICE: 3}


@pytest.mark.asyncio
async def test_many_nodes_make_one_batch(db: Database) -> None:
    peers, desk = [await enrolled(db) for _ in range(5)], Desk(db)
    for number, peer in enumerate(peers):
        desk.ingest.offer(peer, telemetry(("a", NOW, float(number)), ("b", NOW, float(number))), NOW)
    await desk.ingest.flush()
    assert len(desk.told) == 1
    assert set(desk.told[0]) == {(peer, device) for peer in peers for device in ("a", "b")}
    transactions = await db.fetch("SELECT DISTINCT xmin::text FROM sample")
    assert (len(transactions), await kept(db)) == (1, 10)


@pytest.mark.asyncio
async def test_what_two_replicas_write_at_once_counts_once(db: Database) -> None:
    """Each has the other's samples and some of its own, in another order."""
    peers = [await enrolled(db) for _ in range(4)]
    desks = [Desk(db), Desk(db)]
    for turn, desk in enumerate(desks):
        for peer in peers[:: 1 if turn == 0 else -1]:
            desk.ingest.offer(peer, telemetry(*(("a", NOW - 1_000 * second, 1.0) for second in range(50))), NOW)
            desk.ingest.offer(peer, telemetry(("b", NOW - 1_000 * turn, 1.0)), NOW)
    await asyncio.gather(*(desk.ingest.flush() for desk in desks))
    assert await kept(db) == 4 * 50 + 4 * 2
    fates = desks[0].fates + desks[1].fates
    assert fates == {Fate.KEPT: 208, Fate.TWICE: 200}


@pytest.mark.asyncio
async def test_samples_from_the_future_or_too_late_or_without_number_are_not_kept(db: Database) -> None:
    peer, desk = await enrolled(db), Desk(db)
    message = telemetry(
        ("a", NOW + rules.CLOCK_AHEAD_MS_MAX + 1, 1.0),
        ("a", NOW, 2.0),
        ("a", NOW - rules.LATE_MS_MAX - 1, 1.0),
        ("b", NOW, math.nan),
    )
    await desk.record(peer, message)
    assert [set(newest) for newest in desk.told] == [{(peer, "a")}]
    assert desk.told[0][(peer, "a")].sample.at_ms == NOW
    assert desk.fates == {Fate.KEPT: 1, Fate.IMPLAUSIBLE: 3}


@pytest.mark.asyncio
async def test_every_field_of_a_reading_is_kept(db: Database) -> None:
    assert list(service.COLUMNS) == [field.name for field in msgspec.structs.fields(Sample)]
    peer, desk = await enrolled(db), Desk(db)
    full: dict[str, Any] = {name: 2**53 for name, kind in service.COLUMNS.items() if kind == "bigint"}
    full |= {name: 12.5 for name, kind in service.COLUMNS.items() if kind == "real"}
    samples = [
        Sample(**(full | {"at_ms": NOW, "throttle": ("thermal", "power_cap")})),
        Sample(**(full | {"at_ms": NOW + 1_000, "throttle": ()})),
        Sample(at_ms=NOW + 2_000),
    ]
    message = Telemetry(samples=tuple(DeviceSample(device_id="a", sample=sample) for sample in samples))
    await desk.record(peer, message, NOW + 2_000)
    assert await service.series(db, peer, "a", since_ms=NOW - 60_000, now_ms=NOW) == samples


@pytest.mark.asyncio
@pytest.mark.parametrize("told", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("count", [1, copying.AT_ONCE, copying.AT_ONCE + 1, 1_100])
async def test_our_rows_are_what_the_driver_writes(db: Database, count: int, told: float) -> None:
    """Whichever cells each record tells, in whatever mixture."""
    luck = random.Random(f"{count} {told}")
    numbers: dict[str, list[Any]] = {"bigint": [0, -1, 2**63 - 1, -(2**63)], "real": [0.0, -0.5, 3.25e38, 1]}
    words = [(), ("x",), ("ü" * 40,), ("thermal", "power_cap")]
    columns = {"a": "bigint", "b": "real", "c": "bigint", "d": "real", "e": "text", "f": "text"}
    records = [
        tuple(luck.choice(numbers.get(kind, words)) if luck.random() < told else None for kind in columns.values())
        for _ in range(count)
    ]

    async def step(tx: Tx) -> list[Any]:
        for table in ("ours", "theirs"):
            listed = ", ".join(f"{name} {kind}" for name, kind in columns.items())
            await execute(tx, f"CREATE TEMP TABLE {table} ({listed}, no int GENERATED ALWAYS AS IDENTITY)")
        await copying.Rows(columns).copy(tx, "ours", count, lambda some: list(zip(*records[some], strict=True)))
        theirs = [tuple(",".join(one) if isinstance(one, tuple) else one for one in record) for record in records]
        await tx._connection.copy_records_to_table("theirs", records=theirs, columns=list(columns))
        assert await value(tx, "SELECT count(*) FROM ours") == count
        return await rows(tx, "(TABLE ours EXCEPT TABLE theirs) UNION ALL (TABLE theirs EXCEPT TABLE ours)")

    assert await db.run(step) == []


@pytest.mark.asyncio
async def test_a_node_cannot_fill_the_table(db: Database) -> None:
    """One row a second of a device that is in the market, however much is said."""
    peer, desk = await enrolled(db), Desk(db)
    flood = telemetry(*(("a", NOW + ms, 1.0) for ms in range(500)), *((f"made-up-{i}", NOW, 1.0) for i in range(12)))
    await desk.record(peer, flood, NOW + 500)
    assert [set(newest) for newest in desk.told] == [{(peer, "a")}]
    await desk.record(peer, telemetry(("a", NOW + 600, 1.0)), NOW + 600)
    assert await kept(db) == 1
    assert desk.fates == {Fate.KEPT: 1, Fate.UNLISTED: 12, Fate.TWICE: 500}


@pytest.mark.asyncio
async def test_what_the_database_refuses_costs_only_its_own_node(db: Database) -> None:
    good, bad, desk = await enrolled(db), await enrolled(db), Desk(db)
    desk.ingest.offer(good, telemetry(("a", NOW, 1.0)), NOW)
    desk.ingest.offer(bad, telemetry(("a", NOW, 101.0)), NOW)
    await desk.ingest.flush()
    assert desk.fates == {Fate.KEPT: 1, Fate.REFUSED: 1}
    assert [set(newest) for newest in desk.told] == [{(good, "a")}]


class Away(Database):
    """Gone for the first tries."""

    def __init__(self, inner: Database, tries: int) -> None:
        self.__dict__ |= inner.__dict__
        self.tries = tries

    async def run(self, step: Any, isolation: Any = "read_committed") -> Any:
        if self.tries:
            self.tries -= 1
            raise Unavailable("away")
        return await super().run(step, isolation)

    async def until_back(self) -> None:
        await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_while_the_database_is_away_the_newest_wait_and_nobody_else_does(db: Database) -> None:
    peer = await enrolled(db)
    desk = Desk(Away(db, 3), waiting_max=10)
    for second in range(25):
        desk.ingest.offer(peer, telemetry(("a", NOW + second * 1_000, 1.0)), NOW + second * 1_000)
    assert (desk.ingest.waiting, desk.fates) == (10, {Fate.OVERFLOWN: 15})
    await desk.ingest.flush()
    series = await service.series(db, peer, "a", since_ms=NOW, now_ms=NOW + 25_000)
    assert [one.at_ms for one in series] == [NOW + second * 1_000 for second in range(15, 25)]
    assert (desk.ingest.waiting, desk.fates[Fate.KEPT]) == (0, 10)
    assert [one.received_ms for newest in desk.told for one in newest.values()] == [NOW + 24_000], "as old as it is"


@pytest.mark.asyncio
async def test_a_replica_that_tends_leaves_the_others_alone(db: Database) -> None:
    """Both make partitions at once and neither fails; what one of them drops is dropped once."""
    made = await asyncio.gather(*(db.run(lambda tx: partitions.make(tx, SAMPLES, range(10))) for _ in range(4)))
    assert sorted(itertools.chain(*made)) == sorted(SAMPLES.name(number) for number in range(10))
    dropped = await asyncio.gather(
        *(db.run(lambda tx: partitions.drop_before(tx, SAMPLES, 5 * DAY_S)) for _ in range(4))
    )
    assert sorted(itertools.chain(*dropped)) == [SAMPLES.name(number) for number in range(5)]


@pytest.mark.asyncio
async def test_a_long_series_is_thinned_evenly_and_ends_with_the_newest(db: Database) -> None:
    peer, desk = await enrolled(db), Desk(db)
    every_ms, count = 2_000, 2 * READINGS_MAX
    readings = [("a", NOW + number * every_ms, float(number % 100)) for number in range(count)]
    end = readings[-1][1]
    for part in range(0, count, 512):
        desk.ingest.offer(peer, telemetry(*readings[part : part + 512]), end)
    await desk.ingest.flush()
    series = await service.series(db, peer, "a", since_ms=NOW, now_ms=end)
    assert count / 2 - 2 <= len(series) <= READINGS_MAX
    times = [one.at_ms for one in series]
    assert times == sorted(times)
    assert times[-1] == end
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) <= 3 * every_ms


@pytest.mark.parametrize(("minutes", "most"), [(1, 720), (60, 720), (1440, 720), (1440, 2)])
def test_stretches_cover_the_window(minutes: int, most: int) -> None:
    stretch = rules.stretch_ms(minutes * 60_000, most)
    assert minutes * 60_000 / stretch <= most - 1 or stretch == 1_000


@pytest.mark.asyncio
async def test_samples_of_before_the_partitions_are_kept(pg_server: PgServer, monkeypatch: pytest.MonkeyPatch) -> None:
    dsn = await fresh_database(pg_server, migrated=False)
    every = migrations.STEPS
    until = every.index("telemetry/schema_5_partitions.sql")
    monkeypatch.setattr(migrations, "STEPS", every[:until])
    await migrations.migrate(dsn, "devnet")
    connection = await plain_connection(dsn)
    try:
        await _before(connection)
        monkeypatch.setattr(migrations, "STEPS", every)
        await migrations.migrate(dsn, "devnet")
        found = await connection.fetch(
            "SELECT l.device_id, s.at_ms, s.throttle, s.xid, s.tableoid::regclass::text AS part"
            " FROM sample s JOIN listing l ON l.no = s.device_no ORDER BY at_ms"
        )
    finally:
        await connection.close()
    day = NOW // 86_400_000
    assert [tuple(row) for row in found] == [
        ("a", NOW, "thermal", 7, f"sample_p{day}"),
        ("a", NOW + 86_400_000, "thermal", 7, f"sample_p{day + 1}"),
    ]


async def _before(connection: asyncpg.Connection) -> None:
    """A node with a listing and two samples, by the tables as they were."""
    await connection.execute(
        "INSERT INTO account (id, kind, name) VALUES (gen_random_uuid(), 'user', 'x');"
        "INSERT INTO account_key (public_key, account_id, purpose)"
        " SELECT decode(repeat('01', 32), 'hex'), id, 'node' FROM account;"
        "INSERT INTO node (peer_id, account_id, public_key)"
        " SELECT repeat('p', 52), id, decode(repeat('01', 32), 'hex') FROM account;"
        "INSERT INTO listing (id, peer_id, device_id, kind, model, memory_bytes, cores, driver, cuda,"
        " compute_capability, backends, rate_qu_per_h, region, availability, rates, jobs_parallel, offer_digest,"
        " offer_raw, offered_ms, updated_ms) VALUES (gen_random_uuid(), repeat('p', 52), 'a', 'cpu', 'x', 1, 1, '', '',"
        " '', '{cpu}', 1, '', 'available', '[]', 1, decode(repeat('01', 32), 'hex'), '', 1, 1)"
    )
    for at_ms in (NOW, NOW + 86_400_000):
        await connection.execute(
            "INSERT INTO sample (peer_id, device_id, at_ms, received_ms, throttle, xid)"
            " VALUES (repeat('p', 52), 'a', $1, $1, 'thermal', 7)",
            at_ms,
        )
