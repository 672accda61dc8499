# SPDX-License-Identifier: Apache-2.0
"""What the database answers to a query is what plain Python finds, page by page, whatever the order."""

import asyncio
import contextlib
import dataclasses
import random
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.db.database import Database, Tx, execute
from qubix_coordinator.db.database import rows as all_rows
from qubix_coordinator.errors import InvalidInput
from qubix_coordinator.market import nearest, service, words
from qubix_coordinator.market import query as search
from qubix_coordinator.market.counts import Counts, counts
from qubix_coordinator.market.query import Asked
from qubix_coordinator.market.search_sql import Sql
from qubix_coordinator.market.tables import Listing
from qubix_protocol.api import ListingView
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Sample
from qubix_protocol.query import ordered, parse, parse_order
from qubix_protocol.states import Availability
from qubix_protocol.units import OFFER_S
from tests.support.query_cases import lines, listing, listing_fields, orders
from tests.support_pg import PgServer, connected

NOW = 1_700_000_000_000
PEERS = [SigningKey(bytes([n]) * 32).peer_id for n in range(3)]


def row_of(number: int, one: ListingView, **changes: Any) -> Listing:
    metrics_ms = (NOW - 60_000 if one.stale else NOW - 1_000) if one.metrics is not None else None
    names = set(one.__struct_fields__) & set(Listing._meta.fields_map)
    plain = {name: getattr(one, name) for name in names} | {
        "id": uuid.UUID(int=number),
        "peer_id": PEERS[hash_of(one.provider)],
        "device_id": f"GPU-{number}",
        "kind": one.kind.value,
        "backends": list(one.backends),
        "availability": one.availability.value,
        "isolation": one.isolation.value,
        "metrics": msgspec.to_builtins(one.metrics) if one.metrics is not None else None,
        "metrics_ms": metrics_ms,
        "rates": [],
        "jobs_parallel": 1,
        "offer_digest": bytes(32),
        "offer_raw": b"",
        "offered_ms": NOW,
        "updated_ms": NOW,
    }
    return Listing(**(plain | changes))


def hash_of(text: str) -> int:
    return sum(text.encode()) % len(PEERS)


async def fill(db: Database, rows: Sequence[Listing]) -> list[ListingView]:
    async def step(tx: Tx) -> None:
        for peer in PEERS:
            await accounts.ensure_node(tx, peer)
        await execute(tx, "TRUNCATE listing CASCADE")
        await Listing.bulk_create(rows, using_db=tx)

    await db.run(step)
    return await service.listings(db, now_ms=NOW)


async def paged(db: Database, asked: Asked) -> list[list[str]]:
    """Listing ids, page by page."""
    pages: list[list[str]] = []
    after: str | None = None
    while True:
        async with db.transaction("repeatable_read", readonly=True, anew=True) as tx:
            found = await search.page(tx, dataclasses.replace(asked, after=after), now_ms=NOW)
        pages.append([one.listing_id for one in found.listings])
        after = found.next
        if after is None:
            return pages


async def counted(db: Database, line: str) -> Counts:
    async with db.transaction("repeatable_read", readonly=True, anew=True) as tx:
        return await counts(tx, parse(line), now_ms=NOW, offer_s=OFFER_S)


def check_counts(found: Counts, line: str, views: Sequence[ListingView]) -> None:
    query = parse(line)
    assert found.everything == len(views)
    assert found.total == sum(query.matches(one) for one in views)
    filters = [part for part in query.filters() if not part.text().endswith("=any") or part.text().startswith("not")]
    if len(found.filters) == len(filters):
        for one, part in zip(found.filters, filters, strict=True):
            others = [other for other in filters if other is not part]
            assert (one.text, one.matches) == (part.text(), sum(part.matches(view) for view in views))
            assert one.without == sum(all(other.matches(view) for other in others) for view in views)
    for relax in found.relax:
        assert relax.offers > 0
        if relax.instead:
            kept = [part.text() for part in filters if part.text() != relax.leave_out[0]]
            again = parse(" ".join(f"({text})" for text in [*kept, relax.instead]))
            assert any(again.matches(view) for view in views), (line, relax)
    assert bool(found.why) == (found.total == 0)


@contextlib.contextmanager
def world(server: PgServer) -> Iterator[tuple[asyncio.Runner, Database]]:
    with asyncio.Runner() as runner:
        scope = connected(server)
        db = runner.run(scope.__aenter__())
        try:
            yield runner, db
        finally:
            runner.run(scope.__aexit__(None, None, None))


def compare_with_python(server: PgServer, examples: int) -> None:
    with world(server) as (runner, db):

        @settings(
            phases=[Phase.explicit, Phase.generate],  # a smaller example is not worth minutes of a database
            deadline=None,
            derandomize=True,
            max_examples=examples,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(
            population=st.lists(listing_fields, min_size=1, max_size=40),
            searches=st.lists(st.tuples(lines, orders(), st.integers(1, 15)), min_size=12, max_size=12),
        )
        def check(population: list[dict[str, Any]], searches: list[tuple[str, str, int]]) -> None:
            rows = [row_of(n, listing(n, **fields)) for n, fields in enumerate(population, start=1)]
            views = runner.run(fill(db, rows))
            assert len(views) == len(rows)
            for line, order, limit in searches:
                asked = Asked(parse(line), parse_order(order) or search.DEFAULT_ORDER, limit)
                wanted = [one.listing_id for one in ordered(filter(asked.query.matches, views), asked.keys)]
                pages = runner.run(paged(db, asked))
                assert [key for page in pages for key in page] == wanted, (line, order)
                assert all(len(page) == limit for page in pages[:-1])
                check_counts(runner.run(counted(db, line)), line, views)

        check()


def test_the_database_finds_what_python_finds(pg_server: PgServer) -> None:
    compare_with_python(pg_server, 6)


@pytest.mark.slow
def test_the_database_finds_what_python_finds_at_length(pg_server: PgServer) -> None:
    compare_with_python(pg_server, 300)


EDGES = [
    listing(1, memory_bytes=1_181_116_006, driver="580.9", metrics=Sample(at_ms=1, temperature_c=70.0)),
    listing(2, memory_bytes=1_181_116_007, driver="580.10", score=1_500.0, metrics=Sample(at_ms=1, temperature_c=80.0)),
    listing(3, memory_bytes=0, driver="", region="", country="DE", backends=()),
    listing(4, driver="580.0", model="100% sure_thing", rate_qu_per_h=0, score=3.0, availability=Availability.BUSY),
    listing(5, driver="1000000000", cuda="12.10.0", model="A\\B", region="EU", metrics=Sample(at_ms=1), stale=True),
    listing(
        6, rate_qu_per_h=10**12, cuda="12.9", jobs_accepted=7, score=0.1, reliability=1.0, backends=("Cuda", "cpu")
    ),
]
EDGE_LINES = [
    *("gpu_ram<1.1GiB", "gpu_ram<=1.1GiB", "gpu_ram>1.1GiB", "gpu_ram>=1.1GiB", "gpu_ram=1.1GiB", "gpu_ram!=1.1GiB"),
    *("gpu_ram in [1.1GiB]", "gpu_ram notin [1.1GiB, 1.2GiB]", "gpu_ram=1.1GiB..", "gpu_ram!=..1.1GiB"),
    *("driver>580.9", "driver=580", "driver=100000000", "driver!=580.9", "driver in [580, 580.10]", "driver=..580.9"),
    *("cuda>12.9", "cuda=12.10", "not cuda>12.9", "temp<80", "not temp<80", "temp!=80", "temp=unknown", "stale"),
    *("'100%'", "sure_thing", "'a\\\\b'", "'%'", "'_'", "backend=cuda", "backend!=cuda", "backend notin [wgpu, cuda]"),
    *("region=eu", "region!=eu", "country=DE or stale", "score_per_qu>=0.2", "score_per_qu=unknown", "price=0"),
    *("price>=999999999999", "reliability=100%", "not (temp<80 and verified)", "not (temp<80 or not verified)"),
    *("listing=00000000-0000-0000-0000-000000000004", "device in [GPU-1, GPU-2]", "rentable=false", "kind=cpu", ""),
]  # fmt: skip
EDGE_ORDERS = [
    "",
    "temp",
    "temp-",
    "temp nulls first",
    "temp- nulls first",
    "cuda-, gpu_ram",
    "availability, score-",
    "region-",
]


@pytest.mark.asyncio
async def test_edges(db: Database) -> None:
    views = await fill(db, [row_of(n, one) for n, one in enumerate(EDGES, start=1)])
    found = 0
    for line in EDGE_LINES:
        query = parse(line)
        asked = Asked(query)
        wanted = [one.listing_id for one in ordered(filter(query.matches, views), asked.keys)]
        assert await paged(db, asked) == [wanted], line
        found += len(wanted)
    assert found > len(EDGE_LINES)
    for order in EDGE_ORDERS:
        keys = parse_order(order) or search.DEFAULT_ORDER
        for limit in (1, 2, 6):
            pages = await paged(db, Asked(parse(""), keys, limit))
            assert [key for page in pages for key in page] == [one.listing_id for one in ordered(views, keys)], order


@pytest.mark.asyncio
async def test_what_is_searched_follows_the_listing(db: Database) -> None:
    """By a trigger: whoever writes a listing, a search finds it as it is, and not at all once it left."""
    await fill(db, [row_of(1, listing(1))])

    async def ids(line: str) -> int:
        return sum(map(len, await paged(db, Asked(parse(line)))))

    async def change(values: dict[str, Any]) -> None:
        await db.run(lambda tx: Listing.filter(id=uuid.UUID(int=1)).using_db(tx).update(**values))

    changes: list[tuple[dict[str, Any], str]] = [
        ({"rate_qu_per_h": 7}, "price=7"),
        ({"metrics": {"at_ms": 1, "temperature_c": 33.5}, "metrics_ms": NOW}, "temp=33.5 not stale"),
        ({"score": 12.5, "verified": False}, "score=12.5 not verified"),
        ({"country": "FR", "driver": "Mesa 24"}, "country=FR driver=unknown mesa"),
    ]
    for values, line in changes:
        assert await ids(line) == 0, line
        await change(values)
        assert await ids(line) == 1, line
    await db.run(lambda tx: execute(tx, "ALTER TABLE listing DROP CONSTRAINT listing_rental_fk"))
    gone: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"online": False}, {"online": True}),
        ({"rental_id": uuid.UUID(int=9)}, {"rental_id": None}),
        ({"availability": "offline"}, {"availability": "busy"}),
        ({"offered_ms": 1}, {"offered_ms": NOW}),
    ]
    for away, back in gone:
        await change(away)
        assert await ids("") == 0, away
        await change(back)
        assert await ids("") == 1, back


@pytest.mark.asyncio
async def test_free_text_is_found_in_the_words_that_listings_share(db: Database) -> None:
    """However many words have it, whether they are a device's or a peer's, and nobody's are kept."""
    rows = [row_of(n, listing(n, model=f"Card {n % 3}", driver="", provider=str(n))) for n in range(1, 10)]
    views = await fill(db, rows)

    async def words_kept() -> int:
        return int(await db.fetch_value("SELECT count(*) FROM listing_words"))

    assert await words_kept() == 3 + len(PEERS)
    for line in ("'card 1'", "c", "12d3koo", f"{PEERS[0][-9:]} or 'card 2'", "not 'card 0'", "nowhere", "'\u00e9'"):
        query = parse(line)
        wanted = sorted(one.listing_id for one in views if query.matches(one))
        async with db.transaction("repeatable_read", readonly=True, anew=True) as tx:
            few = await words.look_up(tx, query.root)
            for looked in (few, dict.fromkeys(few, words.Found(None, None))):
                sql = Sql(NOW, looked)
                text = f"SELECT id FROM listing_search WHERE {sql.condition(query.root)} ORDER BY id"
                assert [str(row["id"]) for row in await all_rows(tx, text, *sql.arguments)] == wanted, line
    assert await db.run(words.forget) == 0
    await db.run(lambda tx: Listing.filter(model="Card 1").using_db(tx).update(model="Card 2", online=False))
    await db.run(lambda tx: Listing.filter(model="Card 2", online=True).using_db(tx).update(region="moon"))
    assert await words_kept() == 3 + len(PEERS) + 1
    assert await db.run(words.forget) == 3, "those of Card 1 and of its node, and of Card 2 as it was"
    assert len(await service.listings(db, now_ms=NOW)) == sum(map(len, await paged(db, Asked(parse("card")))))


@pytest.mark.asyncio
@pytest.mark.parametrize("order", ["price, gpu_ram-", "price-"])
async def test_a_page_by_price_of_a_text_that_many_have_leaves_nothing_out(
    db: Database, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the first offers of each word fill a page, do so with equal prices, or fail the other filters."""
    bounds: list[str | None] = []
    bound = nearest.bound

    def kept(*given: Any) -> str | None:
        bounds.append(bound(*given))
        return bounds[-1]

    monkeypatch.setattr(nearest, "bound", kept)
    monkeypatch.setattr(nearest, "EACH_MIN", 1)
    luck = random.Random(5)
    rows = [
        row_of(
            n,
            listing(
                n,
                model=f"Card {luck.choice('xyz')}",
                region=luck.choice(["eu", "us"]),
                rate_qu_per_h=luck.choice([100, 100, 101, luck.randrange(90, 400)]),
                memory_bytes=luck.randrange(1, 4) * 10**9,
                verified=luck.random() < 0.1,
            ),
        )
        for n in range(1, 121)
    ]
    views = await fill(db, rows)
    for line in (
        "card",
        "card region=eu",
        "card verified",
        "'card x' region in [us]",
        "card region=nowhere",
        "card p>0",
    ):
        for limit in (5, 50):
            asked = Asked(parse(line.replace("p>", "price>")), parse_order(order), limit)
            wanted = [one.listing_id for one in ordered(filter(asked.query.matches, views), asked.keys)]
            assert [key for page in await paged(db, asked) for key in page] == wanted, line
    assert sum(one is not None for one in bounds) > len(bounds) / 2


@pytest.mark.asyncio
async def test_a_sweep_forgets_all_words_that_nobody_has(db: Database) -> None:
    """More than one transaction takes."""
    rows = [row_of(n, listing(n, model="Card", driver="", provider="1")) for n in range(1, 3)]
    await fill(db, rows)
    kept = await db.fetch_value("SELECT count(*) FROM listing_words")
    many = 2 * words.FORGET_BATCH + 1
    await db.run(
        lambda tx: execute(
            tx,
            "INSERT INTO listing_words (peer, words) SELECT false, 'old ' || n FROM generate_series(1, $1::integer) n",
            many,
        )
    )
    assert await words.sweep(db) == many
    assert await db.fetch_value("SELECT count(*) FROM listing_words") == kept


@pytest.mark.asyncio
async def test_nothing_found_says_why_and_what_would_help(db: Database) -> None:
    rows = [row_of(n, listing(n, rate_qu_per_h=130 + 10 * n, memory_bytes=n * 10**9)) for n in range(1, 13)]
    await fill(db, rows)
    found = await counted(db, "price<=100 gpu_ram>=1 verified")
    assert (found.total, found.everything) == (0, 12)
    (relax,) = found.relax
    assert (relax.leave_out, relax.offers, relax.instead) == (("price<=100QU/h",), 12, "price<=140QU/h")
    assert relax.said == "12 offers without price<=100QU/h; the nearest has price<=140QU/h"
    assert found.why == "None of the 12 offers satisfies price<=100QU/h."
    assert [(one.text, one.column, one.length) for one in found.filters] == [
        ("price<=100QU/h", 1, 10), ("gpu_ram>=1GB", 12, 10), ("verified=true", 23, 8)
    ]  # fmt: skip
    neither = await counted(db, "price<=150 gpu_ram>=3")
    assert [(one.leave_out, one.offers, one.instead) for one in neither.relax] == [
        (("price<=150QU/h",), 10, "price<=160QU/h"),
        (("gpu_ram>=3GB",), 2, "gpu_ram>=2GB"),
    ]
    assert neither.why == "price<=150QU/h or gpu_ram>=3GB excludes every offer that satisfies the rest."
    both = await counted(db, "price<=100 gpu_ram>=13 verified")
    assert [one.leave_out for one in both.relax] == [("price<=100QU/h", "gpu_ram>=13GB")]


@pytest.mark.asyncio
async def test_a_cursor_is_good_for_its_own_search_alone(db: Database) -> None:
    await fill(db, [row_of(n, listing(n)) for n in range(1, 5)])
    asked = Asked(parse("gpu_ram>=1"), parse_order("temp-, price"), 2)
    async with db.transaction("repeatable_read", readonly=True, anew=True) as tx:
        cursor = (await search.page(tx, asked, now_ms=NOW)).next
    assert cursor is not None
    others = [
        dataclasses.replace(asked, query=parse("gpu_ram>=2"), after=cursor),
        dataclasses.replace(asked, keys=parse_order("temp, price"), after=cursor),
        *(
            dataclasses.replace(asked, after=text)
            for text in ("", "x", "é", cursor[:-3], cursor[4:], "bnVsbA", "A" * 5000)
        ),
    ]
    for other in others:
        async with db.transaction("repeatable_read", readonly=True, anew=True) as tx:
            with pytest.raises(InvalidInput) as caught:
                await search.page(tx, other, now_ms=NOW)
        assert caught.value.field == "after"
