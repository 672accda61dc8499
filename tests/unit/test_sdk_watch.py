# SPDX-License-Identifier: Apache-2.0
"""Watching offers: every change once, whatever the connection does, by both clients and on the command line."""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from rich.console import Console

from qubix import AsyncClient, Client
from qubix.cli import main
from qubix.cli.watch import lines, picture
from qubix.errors import ApiError, BadUsage, CannotReach
from qubix.settings import Settings
from qubix.watching import Link, OffersTable, OffersUpdate
from qubix_protocol.api import ListingView
from qubix_protocol.query import parse_order
from tests.support.fake_api import TOKEN, FakeApi, Seen, listing

QUERY = "price<10"
TOPIC = f"market?{QUERY}"
ONE, TWO, THREE = listing("one", 3), listing("two", 2), listing("three", 1)
DEARER = msgspec.structs.replace(ONE, rate_qu_per_h=4)


def frame(kind: str, cursor: str, data: Any = None, topic: str = TOPIC) -> dict[str, Any]:
    return {"topic": topic, "kind": kind, "cursor": cursor, "data": msgspec.to_builtins(data)}


def delta(cursor: str, *listings: ListingView, gone: tuple[ListingView, ...] = ()) -> dict[str, Any]:
    return frame("delta", cursor, {"listings": listings, "gone": [one.listing_id for one in gone]})


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as found:
        yield found


def made(api: FakeApi, folder: Path) -> Settings:
    return Settings(coordinator_url=api.url, token=TOKEN, data_dir=folder, tries_max=1)


async def watched(found: Settings, over: Callable[[OffersUpdate], bool]) -> list[OffersUpdate]:
    async with AsyncClient(settings=found) as client:
        updates = []
        async for update in client.watch_offers(QUERY, "price"):
            updates.append(update)
            if over(update):
                break
        return updates


def names(offers: Any) -> list[str]:
    return [one.provider for one in offers]


SCRIPTS = [
    [frame("snapshot", "", [ONE]), frame("more", "1-1", [TWO]), frame("still", "1-2"), delta("1-3", DEARER, THREE)],
    [delta("1-4", gone=(TWO,)), frame("delta", "9-9", {"listings": [], "gone": []}, "something:new")],
    [frame("reset", ""), frame("snapshot", "", [ONE])],
    [frame("reset", ""), frame("snapshot", "2-1", [DEARER, TWO])],
]
TOLD = [
    ([], [], ["one", "two"]),
    (["one"], [], ["three"]),
    ([], ["two"], []),
    ([], ["three"], ["two"]),
]


def check(updates: list[OffersUpdate], api: FakeApi) -> None:
    news = [one for one in updates if one.news]
    assert [(names(one.changed), names(one.gone), names(one.entered)) for one in news] == TOLD
    assert [one.snapshot for one in news] == [True, False, False, False]
    assert names(updates[-1].table.ordered()) == ["two", "one"]
    assert {one.link for one in updates} == {Link.LIVE, Link.RECONNECTING}
    asked = [one["subscribe"][0] for one in api.subscriptions]
    assert [one.get("cursor") for one in asked] == [None, "1-3", "1-4", "1-4"], "not of half a snapshot"
    assert {(one["topic"], one["query"], one["order"]) for one in asked} == {("market", QUERY, "price")}


@pytest.mark.asyncio
async def test_every_change_is_told_once_across_reconnects(api: FakeApi, tmp_path: Path) -> None:
    api.live = list(SCRIPTS)
    check(await watched(made(api, tmp_path), lambda update: names(update.gone) == ["three"]), api)


def test_the_blocking_client_is_told_the_same(api: FakeApi, tmp_path: Path) -> None:
    api.live = list(SCRIPTS)
    updates = []
    with Client(settings=made(api, tmp_path)) as client:
        for update in client.watch_offers(QUERY, "price"):
            updates.append(update)
            if names(update.gone) == ["three"]:
                break
    check(updates, api)


class Late(FakeApi):
    """Its feed is there only after somebody asked for the offers."""

    def _get_offers(self, seen: Seen, listing_id: str = "", what: str = "") -> tuple[int, Any]:
        self.live.append([frame("snapshot", "1.0", [ONE])])
        return super()._get_offers(seen, listing_id, what)


@pytest.mark.asyncio
async def test_a_visitor_whose_connection_fails_is_not_asked_to_sign_in(tmp_path: Path) -> None:
    with Late() as api:
        found = made(api, tmp_path)
        [first] = await watched(replace(found, token=""), lambda update: True)
        assert names(first.entered) == [ONE.provider]
        assert api.subscriptions[0]["subscribe"][0]["topic"] == "market"


@pytest.mark.asyncio
async def test_a_refusal_is_an_error_and_nobody_there_is_one(api: FakeApi, tmp_path: Path) -> None:
    problem = {"type": "about:blank", "title": "no", "status": 429, "code": "limit_exceeded", "remedy": "Narrow it"}
    api.live = [[problem]]
    with pytest.raises(ApiError) as refused:
        await watched(made(api, tmp_path), lambda _: True)
    assert (refused.value.code, refused.value.remedy) == ("limit_exceeded", "Narrow it")
    with pytest.raises(CannotReach):
        await watched(Settings(coordinator_url="http://127.0.0.1:1", token=TOKEN, data_dir=tmp_path), lambda _: True)


@pytest.mark.asyncio
@pytest.mark.parametrize(("query", "order", "field"), [("gpu_rum>=8", "", "query"), ("", "beauty", "order")])
async def test_a_query_that_is_none_is_told_before_anybody_is_asked(
    api: FakeApi, tmp_path: Path, query: str, order: str, field: str
) -> None:
    async with AsyncClient(settings=made(api, tmp_path)) as client:
        with pytest.raises(BadUsage) as refused:
            await anext(client.watch_offers(query, order))
    assert refused.value.field == field
    assert "^" in str(refused.value)
    assert api.subscriptions == []


def test_the_command_prints_a_line_for_each_change(api: FakeApi, tmp_path: Path) -> None:
    problem = {"type": "about:blank", "title": "no", "status": 403, "code": "forbidden", "detail": "that is enough"}
    api.live = [[frame("snapshot", "1-1", [ONE]), delta("1-2", DEARER, TWO), delta("1-3", gone=(ONE,)), problem]]
    env = {"QUBIX_COORDINATOR_URL": api.url, "QUBIX_TOKEN": TOKEN, "QUBIX_DATA_DIR": str(tmp_path)}
    done = CliRunner().invoke(main, ["offers", "watch", QUERY, "--json"], env=env)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["kind"] for line in lines] == ["snapshot", "entered", "changed", "gone"]
    assert [one["provider"] for one in lines[0]["offers"]] == ["one"]
    assert lines[2]["offer"]["rate_qu_per_h"] == 4
    assert "that is enough" in done.stderr
    api.live = [[frame("snapshot", "1-1", [ONE]), delta("1-2", gone=(ONE,)), problem]]
    done = CliRunner().invoke(main, ["offers", "watch", QUERY], env=env)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["offer", "gone"]


def test_the_picture_fits_the_screen_and_says_what_it_leaves_out() -> None:
    table = OffersTable(parse_order("price"))
    table.offers = {one.listing_id: one for one in (listing(f"p{n}", n) for n in range(40))}
    console = Console(width=100, height=24, record=True, file=io.StringIO())
    console.print(picture(OffersUpdate(table, Link.RECONNECTING, 7.4), 24))
    lines = console.export_text().splitlines()
    assert len(lines) < 24
    assert "reconnecting · 40 offers, as of 7 s ago, 22 more below" in lines[-1]


def test_in_lines_a_change_that_shows_nothing_new_is_left_out() -> None:
    table = OffersTable(parse_order("price"))
    busier = msgspec.structs.replace(ONE, jobs_accepted=ONE.jobs_accepted + 1)
    told = list(
        lines(
            [
                OffersUpdate(table, Link.LIVE, 0.0, snapshot=True, entered=(ONE,)),
                OffersUpdate(table, Link.LIVE, 0.0, changed=(busier,)),
                OffersUpdate(table, Link.RECONNECTING, 2.0),
                OffersUpdate(table, Link.LIVE, 0.0, changed=(DEARER,), entered=(TWO,)),
                OffersUpdate(table, Link.LIVE, 0.0, changed=(DEARER, TWO)),
                OffersUpdate(table, Link.LIVE, 0.0, gone=(DEARER,)),
                OffersUpdate(table, Link.LIVE, 0.0, entered=(DEARER,)),
            ]
        )
    )
    assert [line.split()[0] for line in told] == ["offer", "reconnecting;", "entered", "changed", "gone", "entered"]
