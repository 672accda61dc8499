# SPDX-License-Identifier: Apache-2.0
"""`GET /offers`: pages, counts and errors as clients meet them."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
import pytest_asyncio
from quart.typing import TestClientProtocol as Client

from qubix_coordinator.db.database import Database
from qubix_protocol.api import OffersView, Problem
from qubix_protocol.query import parse
from qubix_protocol.states import DeviceKind
from tests.db.support_http import Person, assembled, make_person
from tests.db.test_market_query import PEERS, fill, row_of
from tests.support.query_cases import listing

pytestmark = pytest.mark.asyncio
COUNT = 7


@pytest_asyncio.fixture
async def client(db: Database, tmp_path: Path) -> AsyncIterator[Client]:
    now_ms = round(time.time() * 1000)
    kinds = [DeviceKind.CUDA, DeviceKind.CPU]
    rows = [
        row_of(n, listing(n, rate_qu_per_h=100 * n, kind=kinds[n % 2]), offered_ms=now_ms) for n in range(1, COUNT + 1)
    ]
    await fill(db, rows)
    yield (await assembled(db, tmp_path)).app.test_client()


@pytest_asyncio.fixture
async def person(db: Database) -> Person:
    return await make_person(db)


async def ask(client: Client, person: Person, **query: str) -> Any:
    return await client.get(f"/api/v1/offers?{urlencode(query)}", headers=person.headers)


async def offers(client: Client, person: Person, **query: str) -> OffersView:
    response = await ask(client, person, **query)
    body = await response.get_data()
    assert response.status_code == 200, body
    return msgspec.json.decode(body, type=OffersView)


async def test_everything_without_a_word_as_ever(client: Client, person: Person) -> None:
    found = await offers(client, person)
    assert [one.rate_qu_per_h for one in found.offers] == [100 * n for n in range(1, COUNT + 1)]
    assert (found.next, found.total, found.filters, found.query, found.order) == (None, None, (), "", "price")
    assert found.cursor


async def test_pages_join_to_the_whole(client: Client, person: Person) -> None:
    after, prices = {}, []
    for _ in range(10):
        found = await offers(client, person, q="price>=200", order="price-", limit="2", **after)
        prices += [one.rate_qu_per_h for one in found.offers]
        if found.next is None:
            break
        after = {"after": found.next}
    assert prices == [700, 600, 500, 400, 300, 200]


async def test_plain_filters_and_the_line_hold_together(client: Client, person: Person) -> None:
    found = await offers(client, person, q="price<300 or price>500", kind="cpu", counts="true")
    assert [one.rate_qu_per_h for one in found.offers] == [100, 700]
    assert parse(found.query) == parse("(price<300 or price>500) kind=cpu")
    assert (found.total, found.everything) == (2, COUNT)
    assert [(one.text, one.column, one.matches, one.without) for one in found.filters] == [
        ("price<300QU/h or price>500QU/h", 1, 4, 4),
        ("kind=cpu", 0, 4, 4),
    ]
    assert [one.provider for one in (await offers(client, person, provider=PEERS[1])).offers] in (
        [],
        [PEERS[1]] * COUNT,
    )


async def test_nothing_found_says_why(client: Client, person: Person) -> None:
    found = await offers(client, person, q="price<100")
    assert (found.total, found.everything, found.why) == (0, COUNT, "None of the 7 offers satisfies price<100QU/h.")
    assert [(one.offers, one.instead) for one in found.relax] == [(COUNT, "price<=100QU/h")]


@pytest.mark.parametrize(
    ("query", "field", "column"),
    [
        ({"q": "price<5 gpu_rm>=8"}, "q", 9),
        ({"q": "price<5 gpu_rm>=8", "kind": "cpu"}, "q", 9),
        ({"q": "gpu_ram>=8XB"}, "q", 11),
        ({"order": "price, scor-"}, "order", 8),
    ],
)
async def test_an_error_names_the_column(
    client: Client, person: Person, query: dict[str, str], field: str, column: int
) -> None:
    response = await ask(client, person, **query)
    told = msgspec.json.decode(await response.get_data(), type=Problem)
    assert response.content_type == "application/problem+json"
    assert (told.status, told.code, told.field, told.column) == (422, "query", field, column)
    assert told.length
    assert told.remedy


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "10001"}, "limit"),
        ({"after": "nonsense"}, "after"),
        ({"counts": "perhaps"}, "counts"),
        ({"sort": "price"}, "sort"),
        ({"q": "a" * 2_001}, "q"),
    ],
)
async def test_other_values_are_refused_too(client: Client, person: Person, query: dict[str, str], field: str) -> None:
    response = await ask(client, person, **query)
    told = msgspec.json.decode(await response.get_data(), type=Problem)
    assert (told.status, told.field) == (422, field)


async def test_a_cursor_of_another_query_is_refused(client: Client, person: Person) -> None:
    after = (await offers(client, person, q="price>0", limit="1")).next
    assert after is not None
    response = await ask(client, person, q="price>1", limit="1", after=after)
    told = msgspec.json.decode(await response.get_data(), type=Problem)
    assert (told.status, told.code, told.field) == (422, "invalid_input", "after")
