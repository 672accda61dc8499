# SPDX-License-Identifier: Apache-2.0
"""`/api/v1/browser-node` against a tab written out in the test: who gets in, what is believed, what may be offered."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.exceptions import InvalidStatus

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts.rules import Scope
from qubix_coordinator.db.database import Database
from qubix_coordinator.errors import LimitExceeded
from qubix_coordinator.http.browser_node import Tab as ServedTab
from qubix_coordinator.http.rates import Sockets
from qubix_protocol import browser, envelope
from qubix_protocol.browser import TAKEN_OVER, BrowserOpen, BrowserSay
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import (
    Accept,
    Assign,
    Beat,
    Heartbeat,
    KernelRate,
    Leaving,
    LiveAttempt,
    Offer,
    Refused,
    Settlements,
    SettlementsAsk,
)
from qubix_protocol.selftest import Check, CheckStatus, SelfTest
from qubix_protocol.states import Availability, DeviceKind
from tests.db.support_http import Running, make_person, served
from tests.support.funds import fund
from tests.support.tab import DEADLINE_S, Place, Tab, gpu, offer, tab_of

pytestmark = pytest.mark.asyncio


def place_of(running: Running) -> Place:
    context = running.coordinator.context
    return Place(running.url, context.key.public, context.now_ms)


@contextlib.asynccontextmanager
async def market(db: Database, data_dir: Path, **settings: Any) -> AsyncIterator[tuple[Running, Place]]:
    async with served(db, data_dir, **settings) as running:
        yield running, place_of(running)


async def until(condition: Any) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():  # noqa: ASYNC110 - what it waits for is seen from outside only
            await asyncio.sleep(0.02)


async def offers(running: Running, query: str = "") -> list[dict[str, Any]]:
    person = await make_person(running.db, Scope.USER)
    async with running.client(person) as client:
        answer = await client.get("/api/v1/offers", params={"q": query} if query else {})
        return list(answer.json()["offers"])


async def listed(running: Running, count: int = 1) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    async def there() -> bool:
        found[:] = await offers(running)
        return len(found) == count

    await until(there)
    return found


async def counted(running: Running, code: str) -> float:
    async with running.client() as client:
        text = (await client.get("/metrics")).text
    found = [line for line in text.splitlines() if line.startswith(f'qubix_messages_refused_total{{code="{code}"}}')]
    return float(found[0].split()[-1]) if found else 0.0


async def test_the_first_statement_of_a_key_makes_its_account_and_a_reload_is_the_same_provider(
    db: Database, tmp_path: Path
) -> None:
    async with market(db, tmp_path) as (running, place):
        key = SigningKey.generate()
        async with tab_of(place, key) as tab:
            challenge = await tab.open()
            assert await db.run(lambda tx: accounts.account_of_key(tx, key.public)) is None
            await tab.say(tab.hello(challenge))
            await until(lambda: db.run(lambda tx: accounts.account_of_key(tx, key.public)))
        async with tab_of(place, key) as tab:
            second = await tab.shake_hands()
            assert second.incarnation == 2
            account = await db.run(lambda tx: accounts.account_of_key(tx, key.public))
            assert second.account_id == str(account)
            assert second.artifact_url == f"{running.url}/api/v1/artifacts"


HELLOS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "forged": ({}, {"key": SigningKey(b"x" * 32)}, "bad_signature"),
    "another network": ({}, {"network": "main"}, "wrong_network"),
    "another audience": ({}, {"audience": b"y" * 32}, "wrong_audience"),
    "expired": ({}, {"expires_ms": 1}, "expired"),
    "of a session": ({}, {"incarnation": 1}, "replayed"),
    "an answer to another challenge": ({"nonce": b"z" * 32}, {}, "replayed"),
    "a key to hide it from a gateway": ({"exchange": b"e" * 32}, {}, "bad_signature"),
}


async def test_hellos_that_are_not_to_be_believed_are_counted_and_the_right_one_still_works(
    db: Database, tmp_path: Path
) -> None:
    async with market(db, tmp_path) as (running, place), tab_of(place) as tab:
        challenge = await tab.open()
        for changes, wrong, code in HELLOS.values():
            before = await counted(running, code)
            await tab.say(tab.hello(challenge, **changes), **wrong)

            async def refused(code: str = code, before: float = before) -> bool:
                return await counted(running, code) == before + 1

            await until(refused)
        assert await db.run(lambda tx: accounts.account_of_key(tx, tab.key.public)) is None
        tab.incarnation = 0
        await tab.say(tab.hello(challenge))
        await until(lambda: db.run(lambda tx: accounts.account_of_key(tx, tab.key.public)))


STATEMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "another network": ({"network": "test"}, "wrong_network"),
    "another audience": ({"audience": b"y" * 32}, "wrong_audience"),
    "expired": ({"expires_ms": 1}, "expired"),
    "an earlier session": ({"incarnation": 999}, "replayed"),
    "an earlier counter": ({"counter": 0}, "replayed"),
}


async def test_statements_that_are_not_to_be_believed_are_refused_by_name(db: Database, tmp_path: Path) -> None:
    async with market(db, tmp_path) as (running, place), tab_of(place) as tab:
        await tab.shake_hands()
        await tab.say(Heartbeat())
        for wrong, code in STATEMENTS.values():
            await tab.say(Heartbeat(), **wrong)
            assert (await tab.hear(Refused)).code == code
        replayed = await tab.say(Heartbeat())
        await tab.send(BrowserSay(statement=replayed))
        assert (await tab.hear(Refused)).code == "replayed"
        await tab.say(Heartbeat(), key=SigningKey(b"x" * 32))  # whoever forged it is told nothing
        await tab.say(Heartbeat(), expires_ms=1)
        assert (await tab.hear(Refused)).code == "expired"
        assert await counted(running, "bad_signature") == 1


@pytest.mark.parametrize(
    "origin", [None, "http://evil.example", "http://localhost:1", "null"], ids=["none", "another site", "port", "null"]
)
async def test_only_a_page_of_this_very_server_gets_in(db: Database, tmp_path: Path, origin: str | None) -> None:
    async with market(db, tmp_path) as (_, place):
        with pytest.raises(InvalidStatus) as refusal:
            async with tab_of(place, origin=origin):
                pass
        assert refusal.value.response.status_code == 403


FIRST: dict[str, bytes] = {
    "rubbish": b"\xc1",
    "another network": browser.encode(BrowserOpen(peer_id=SigningKey(b"k" * 32).peer_id, network="main")),
    "no peer id": browser.encode(BrowserOpen(peer_id="somebody", network="devnet")),
    "a statement": browser.encode(BrowserSay(statement=b"x")),
}


async def test_a_first_frame_that_opens_nothing_ends_it(db: Database, tmp_path: Path) -> None:
    async with market(db, tmp_path) as (_, place):
        for first in FIRST.values():
            async with tab_of(place) as tab:
                await tab.raw(first)
                code, reason = await tab.closed()
                assert code == 1008
                assert reason
        async with tab_of(place) as tab:
            await tab.shake_hands()
            await tab.raw("text")
            assert (await tab.closed())[0] == 1008


async def test_a_tabs_gpu_is_listed_as_a_browsers_and_leaves_with_its_socket(db: Database, tmp_path: Path) -> None:
    async with market(db, tmp_path) as (running, place), tab_of(place) as tab:
        await tab.shake_hands()
        await tab.offer()
        (found,) = await listed(running)
        assert (found["provider"], found["kind"], found["browser"]) == (tab.peer_id, "webgpu", True)
        assert (found["verified"], found["fallback"]) == (False, False)
        assert [one["listing_id"] for one in await offers(running, "browser=true")] == [found["listing_id"]]
        assert await offers(running, "browser=false") == []
        await tab.leave()
        await listed(running, 0)


OFFERS: dict[str, Offer] = {
    "a CPU": offer(device=gpu(kind=DeviceKind.CPU, backends=("cpu",))),
    "a CUDA card": offer(device=gpu(kind=DeviceKind.CUDA, backends=("cuda",))),
    "what calls itself software": offer(device=gpu(fallback=True)),
    "what is known to be software": offer(device=gpu(model="Google SwiftShader")),
}


async def test_other_kinds_and_software_are_refused(db: Database, tmp_path: Path) -> None:
    async with market(db, tmp_path) as (running, place), tab_of(place) as tab:
        await tab.shake_hands()
        for said in OFFERS.values():
            await tab.offer(said)
            refusal = await tab.hear(Refused)
            assert refusal.code == "forbidden"
            assert refusal.remedy
        assert await offers(running) == []


async def test_a_test_market_lists_software_and_says_so(db: Database, tmp_path: Path) -> None:
    async with market(db, tmp_path, allow_fallback_adapters=True) as (running, place), tab_of(place) as tab:
        async with running.client() as client:
            assert (await client.get("/api/v1/network")).json()["fallback_adapters"] is True
        await tab.shake_hands()
        await tab.offer(offer(device=gpu(model="SwiftShader")))
        (found,) = await listed(running)
        assert (found["browser"], found["fallback"]) == (True, True)


async def test_a_tab_is_not_rented(db: Database, tmp_path: Path) -> None:
    async with market(db, tmp_path) as (running, place), tab_of(place) as tab:
        await tab.shake_hands()
        await tab.offer()
        (found,) = await listed(running)
        person = await make_person(db, Scope.USER)
        body = {"listing_id": found["listing_id"], "seconds": 60}
        async with running.client(person) as client:
            answer = await client.post("/api/v1/rentals", json=body, headers={"Idempotency-Key": "k"})
        assert answer.status_code == 409
        assert "browser tab" in answer.json()["detail"]


async def test_a_tab_that_passed_its_own_test_is_not_tried_and_stays_unverified(db: Database, tmp_path: Path) -> None:
    settings = {"trial_first_s": 0.0, "trial_every_s": 1.0}
    async with market(db, tmp_path, **settings) as (running, place), tab_of(place) as tab:
        await tab.shake_hands()
        await tab.offer()
        (found,) = await listed(running)
        check = Check(id="webgpu", title="WebGPU", status=CheckStatus.PASS, actual="there", purpose="To compute.")
        heard = SelfTest(
            test_id="00000000-0000-4000-8000-000000000001",
            device_id="webgpu-1",
            at_ms=1,
            took_ms=1,
            quick=False,
            full=True,
            checks=(check,),
        )
        await tab.say(heard)
        person = await make_person(db, Scope.USER)
        async with running.client(person) as client:

            async def told() -> bool:
                answer = await client.get(f"/api/v1/offers/{found['listing_id']}/selftest")
                return bool(answer.json()["passed"])

            await until(told)
        assert await db.fetch("SELECT * FROM trial_plan") == []
        assert (await offers(running))[0]["verified"] is False


async def test_the_same_key_in_another_tab_takes_over(db: Database, tmp_path: Path) -> None:
    async with market(db, tmp_path) as (running, place):
        key = SigningKey.generate()
        async with tab_of(place, key) as first:
            await first.shake_hands()
            await first.offer()
            await listed(running)
            async with tab_of(place, key) as second:
                await second.shake_hands()
                assert (await first.closed())[0] == TAKEN_OVER
                await second.offer(offer(availability=Availability.BUSY))

                async def busy() -> bool:
                    return [one["availability"] for one in await offers(running)] == ["busy"]

                await until(busy)


async def test_an_address_brings_few_new_keys_and_its_old_ones_still_get_in(db: Database, tmp_path: Path) -> None:
    async with market(db, tmp_path) as (_, place):
        known = SigningKey.generate()
        for key in [known, *(SigningKey.generate() for _ in range(9))]:
            async with tab_of(place, key) as tab:
                await tab.shake_hands()
        async with tab_of(place) as tab:
            await tab.send(BrowserOpen(peer_id=tab.peer_id, network="devnet"))
            code, reason = await tab.closed()
            assert (code, "new keys" in reason) == (1008, True)
        async with tab_of(place, known) as tab:
            assert (await tab.shake_hands()).incarnation == 2


async def test_a_tab_that_does_not_read_is_cut_off(db: Database, tmp_path: Path) -> None:
    async with market(db, tmp_path) as (running, _):
        tab = ServedTab(running.coordinator.context.mesh)
        ended = asyncio.create_task(tab.until_ended())
        for _number in range(256):
            tab.to_peer("peer", b"x")
        await asyncio.sleep(0)
        assert not ended.done()
        tab.to_peer("peer", b"x")
        with pytest.raises(Exception, match="does not read"):
            await ended
        assert tab.outgoing.qsize() == 256


async def test_sockets_are_bounded_by_address_and_in_all() -> None:
    sockets = Sockets(each_max=2, all_max=3)
    with sockets.one("a"), sockets.one("a"):
        with pytest.raises(LimitExceeded), sockets.one("a"):
            pass
        with sockets.one("b"), pytest.raises(LimitExceeded), sockets.one("c"):
            pass
    with sockets.one("a"):
        pass


async def test_frames_are_bounded() -> None:
    with pytest.raises(Exception, match="over the limit"):
        browser.decode(bytes(browser.STATEMENT_BYTES_MAX + 2048))
    assert msgspec.structs.asdict(BrowserSay(statement=b"x")) == {"statement": b"x"}


async def assigned(tab: Tab) -> Assign:
    """What it is asked to run, and accepted."""
    found: Assign = await tab.hear(Assign)
    await tab.say(Accept(attempt_id=found.attempt_id, fence=found.fence))
    return found


async def submitted(running: Running, **changes: Any) -> str:
    """A job without arrays, by somebody who can pay for it."""
    person = await make_person(running.db, Scope.USER)
    await fund(running.db, person.account_id, 1_000_000)
    body = {"kernel": "mandelbrot", "params": {"width": 64, "height": 64}, "cap_qu": 100_000} | changes
    async with running.client(person) as client:
        answer = await client.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": "k"})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["job_id"])


FRACTALS = offer(rates=(KernelRate(kernel="mandelbrot", backend="webgpu", flops_per_s=1e9, bytes_per_s=1e9),))


async def test_what_a_tab_has_in_hand_goes_on_elsewhere_when_it_goes(db: Database, tmp_path: Path) -> None:
    async with market(db, tmp_path, return_s=0.2) as (running, place), tab_of(place) as first:
        await first.shake_hands()
        await first.offer(FRACTALS)
        await listed(running)
        job_id = await submitted(running)
        before = await assigned(first)
        assert (before.job_id, before.backend) == (job_id, "webgpu")
        async with tab_of(place) as second:
            await second.shake_hands()
            await second.offer(FRACTALS)
            await listed(running, 2)
            await first.leave()
            after = await assigned(second)
            assert after.job_id == job_id
            assert after.attempt_id != before.attempt_id
            assert after.fence > before.fence


async def test_a_tab_that_is_back_at_once_keeps_what_it_has_in_hand(db: Database, tmp_path: Path) -> None:
    async with market(db, tmp_path, return_s=DEADLINE_S, lease_s=4 * DEADLINE_S) as (running, place):
        key = SigningKey.generate()
        async with tab_of(place, key) as tab:
            await tab.shake_hands()
            await tab.offer(FRACTALS)
            await submitted(running)
            assign = await assigned(tab)
            await tab.leave()
        async with tab_of(place, key) as tab:
            live = LiveAttempt(attempt_id=assign.attempt_id, fence=assign.fence, running=True)
            await tab.shake_hands((live,))
            beat = Beat(attempt_id=assign.attempt_id, fence=assign.fence, fraction=0.5, elapsed_ms=1)
            await tab.say(Heartbeat(attempts=(beat,)))

            async def heard() -> bool:
                found = await db.fetch("SELECT state, fraction FROM attempt")
                return [(one["state"], one["fraction"]) for one in found] == [("running", 0.5)]

            await until(heard)


LAST = 2**53 - 1
"""The highest counter that a page can hold exactly."""
AWAY = {"return_s": 1_000.0, "lease_s": 2_000.0}
"""Only by its own word does anything end in these."""


async def attempts(db: Database) -> list[tuple[str, bool]]:
    """How each stands or ended, and whether its provider is about to go."""
    found = await db.fetch("SELECT state, reason, leaving FROM attempt ORDER BY created_ms, fence")
    return [(one["reason"] if one["state"] == "empty" else one["state"], one["leaving"]) for one in found]


async def test_a_tab_that_says_that_it_goes_and_is_gone_at_once_hands_its_job_on(db: Database, tmp_path: Path) -> None:
    async with market(db, tmp_path, leave_s=0.2, **AWAY) as (running, place), tab_of(place) as first:
        await first.shake_hands()
        await first.offer(FRACTALS)
        await listed(running)
        job_id = await submitted(running)
        before = await assigned(first)
        async with tab_of(place) as second:
            await second.shake_hands()
            await second.offer(FRACTALS)
            await listed(running, 2)
            # Signed ahead; much else is said before it leaves, and nobody waits for an answer.
            word = first.sign(Leaving(), counter=LAST)
            for _ in range(40):
                await first.say(SettlementsAsk(after_ms=0, after=""))
            await first.send(BrowserSay(statement=word))
            await first.leave()
            after = await assigned(second)
            assert (after.job_id, after.attempt_id != before.attempt_id) == (job_id, True)
        assert (await attempts(db))[0][0] == "left"


async def test_a_reload_takes_the_goodbye_back(db: Database, tmp_path: Path) -> None:
    async with market(db, tmp_path, leave_s=DEADLINE_S, **AWAY) as (running, place):
        key = SigningKey.generate()
        async with tab_of(place, key) as tab:
            await tab.shake_hands()
            await tab.offer(FRACTALS)
            await submitted(running)
            assign = await assigned(tab)

            async def runs(*, leaving: bool) -> bool:
                return await attempts(db) == [("running", leaving)]

            await until(lambda: runs(leaving=False))
            await tab.say(Leaving(), counter=LAST)
            await tab.leave()
        await until(lambda: runs(leaving=True))
        async with tab_of(place, key) as tab:
            await tab.shake_hands((LiveAttempt(attempt_id=assign.attempt_id, fence=assign.fence, running=True),))
            beat = Beat(attempt_id=assign.attempt_id, fence=assign.fence, fraction=0.5, elapsed_ms=1)
            await tab.say(Heartbeat(attempts=(beat,)))
            await until(lambda: runs(leaving=False))


GOODBYES: dict[str, tuple[dict[str, Any], str]] = {
    "of another session": ({"incarnation": 999}, "replayed"),
    "of another network": ({"network": "main"}, "wrong_network"),
    "for another market": ({"audience": b"y" * 32}, "wrong_audience"),
    "for anyone": ({"audience": envelope.ANYONE}, "wrong_audience"),
    "of a minute ago": ({"expires_ms": 1}, "expired"),
    "too far ahead": ({"expires_ms": 2**52}, "expired"),
}


async def test_a_goodbye_that_is_not_to_be_believed_changes_nothing(db: Database, tmp_path: Path) -> None:
    async with market(db, tmp_path, leave_s=0.1, **AWAY) as (running, place), tab_of(place) as tab:
        await tab.shake_hands()
        await tab.offer(FRACTALS)
        await listed(running)
        await submitted(running)
        await assigned(tab)
        for wrong, code in GOODBYES.values():
            await tab.say(Leaving(), counter=LAST, **wrong)
            assert (await tab.hear(Refused)).code == code
        before = await counted(running, "bad_signature")
        await tab.say(Leaving(), counter=LAST, key=SigningKey(b"x" * 32))
        await tab.say(Heartbeat(), expires_ms=1)
        assert (await tab.hear(Refused)).code == "expired"
        assert await counted(running, "bad_signature") == before + 1
        assert await attempts(db) == [("running", False)]


async def test_nothing_follows_a_goodbye(db: Database, tmp_path: Path) -> None:
    async with market(db, tmp_path) as (_, place), tab_of(place) as tab:
        await tab.shake_hands()
        word = await tab.say(Leaving(), counter=LAST)
        await tab.send(BrowserSay(statement=word))
        assert (await tab.hear(Refused)).code == "replayed"
        await tab.say(Heartbeat())
        assert (await tab.hear(Refused)).code == "replayed"


async def test_a_tab_that_asks_hears_what_was_settled(db: Database, tmp_path: Path) -> None:
    async with market(db, tmp_path) as (_, place), tab_of(place) as tab:
        await tab.shake_hands()
        await tab.say(SettlementsAsk(after_ms=0, after=""))
        told: Settlements = await tab.hear(Settlements)
        assert (told.told, told.more, told.next) == ((), False, "")
        assert 0 < told.next_ms < place.now_ms()
