# SPDX-License-Identifier: Apache-2.0
"""The master secret and its keys, whose turn it is, which network, and a round of the loop."""

import asyncio
import os
import stat
from pathlib import Path

import httpx
import pytest

from qubix_chain import crypto, identity
from qubix_chain.rpc import Client
from qubix_chain.rpc.errors import Unreachable
from qubix_chain.rpc.http import Limits
from qubix_chain.transaction import Transaction
from qubix_coordinator.db.database import Database
from qubix_coordinator.deposits import pool, status
from qubix_coordinator.deposits.desk import TurnLost
from qubix_coordinator.deposits.status import ChainState
from qubix_coordinator.errors import WrongDatabase, WrongNetwork
from qubix_coordinator.treasury import master
from qubix_coordinator.treasury import turn as turns
from qubix_coordinator.treasury.loop import Loop
from qubix_coordinator.treasury.process import own
from qubix_coordinator.treasury.settings import from_mappings
from qubix_coordinator.treasury.sources import Sources
from qubix_coordinator.treasury.turn import turn
from qubix_protocol.settings import SettingsError
from tests.db.deposits_world import World

SECRET = bytes(range(32))


def test_the_master_secret_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "treasury.master"
    secret, new = master.open_or_make(path)
    assert new
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert master.open_or_make(path) == (secret, False)
    assert [one.name for one in path.parent.iterdir()] == ["treasury.master"]
    path.chmod(0o640)
    with pytest.raises(master.BadMaster, match="others may read"):
        master.open_or_make(path)
    path.chmod(0o600)
    for text in ("", "qubix-master-1 00", "qubix-master-2 " + "00" * 32, "qubix-master-1 " + "zz" * 32):
        path.write_text(text)
        with pytest.raises(master.BadMaster, match="not a master secret"):
            master.open_or_make(path)


def test_a_start_that_was_killed_while_it_made_the_secret_hinders_no_other(tmp_path: Path) -> None:
    """In a container every start has the same process id."""
    path = tmp_path / "treasury.master"
    path.with_name(f"{path.name}.{os.getpid()}.new").write_text("qubix-")
    secret, new = master.open_or_make(path)
    assert new
    assert master.open_or_make(path) == (secret, False)


def test_every_key_follows_from_the_secret_and_opens_in_any_wallet() -> None:
    """The derivation is part of the format: these values never change."""
    signer = master.MasterSigner(SECRET)
    seed = master.seed_of(SECRET, "hot")
    assert len(seed) == 55
    assert set(seed) <= set("abcdefghijklmnopqrstuvwxyz")
    assert seed == "aycbwteictjcnkwmnztdidlkppgsbacxemxkigwkyrihhhstxriqhxb"
    assert identity.encode(signer.hot_public_key) == "PGAFRVUKHAWXABVYPKPDYRZHPFEBKZQQKZJXFBXGNGVJIWHIUXAFNYKAHTQM"
    assert (
        identity.encode(signer.deposit_public_key(7)) == "XCESCAQFALYVPEVXCJXBPEXXHANARQGXEQFDEKGHEFBOTOEVABTRDGCDDXQG"
    )
    assert crypto.public_key(crypto.private_key(crypto.subseed(seed))) == signer.hot_public_key
    assert len({signer.deposit_public_key(n) for n in range(50)} | {signer.hot_public_key}) == 51
    assert SECRET.hex() not in repr(signer)


def test_what_is_signed_is_genuine() -> None:
    signer = master.MasterSigner(SECRET)
    paid = signer.sign_payment(destination=signer.deposit_public_key(0), amount_qu=5, tick=9)
    swept = signer.sign_sweep(3, amount_qu=6, tick=10)
    for one in (paid, swept):
        tx = Transaction.parse(one.raw)
        assert (tx.id, tx.source, tx.destination, tx.amount, tx.tick) == (
            one.tx_id,
            one.source,
            one.destination,
            one.amount_qu,
            one.tick,
        )
    assert (swept.source, swept.destination) == (signer.deposit_public_key(3), signer.hot_public_key)
    assert signer.sign_sweep(3, amount_qu=6, tick=10) == swept


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({}, "QUBIX_QUBIC_URL"),
        ({"QUBIX_QUBIC_URL": "rpc.qubic.org"}, "QUBIX_QUBIC_URL"),
        ({"QUBIX_QUBIC_URL": "ftp://rpc.qubic.org"}, "QUBIX_QUBIC_URL"),
        ({"QUBIX_QUBIC_URL": "https://a.test", "QUBIX_DEPOSIT_SOURCES": "2"}, "QUBIX_DEPOSIT_SOURCES"),
        ({"QUBIX_QUBIC_URL": "https://a.test", "QUBIX_NETWORK": "main", "QUBIX_BARRIERS": "/x"}, "QUBIX_BARRIERS"),
    ],
)
def test_settings_that_cannot_work_are_refused(env: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError) as refused:
        from_mappings(env, {})
    assert refused.value.name == named


def _sources(network: str, answer: httpx.Response) -> Sources:
    transport = httpx.MockTransport(lambda request: answer)
    client = Client("http://one.test", transport=transport, limits=Limits(60, 60, 1))
    return Sources([client], client, [client], network)


@pytest.mark.asyncio
async def test_the_network_must_be_the_ledgers() -> None:
    devnet, other = httpx.Response(200, json={"network": "devnet"}), httpx.Response(404, json={"code": 5})
    await _sources("devnet", devnet).check()
    await _sources("main", other).check()
    with pytest.raises(WrongNetwork, match="is a devnet"):
        await _sources("main", devnet).check()
    with pytest.raises(WrongNetwork, match="is no devnet"):
        await _sources("devnet", other).check()
    with pytest.raises(Unreachable):
        await _sources("main", httpx.Response(503)).check()


@pytest.mark.asyncio
async def test_a_database_belongs_to_one_master_secret(db: Database) -> None:
    mine, other = master.MasterSigner(SECRET), master.MasterSigner(bytes(32))
    for _ in range(2):
        await db.run(lambda tx: own(tx, mine))
    with pytest.raises(WrongDatabase, match="the master secret gives"):
        await db.run(lambda tx: own(tx, other))
    await db.run(lambda tx: pool.fill(tx, mine, 3))
    await db.run(lambda tx: own(tx, mine))


@pytest.mark.asyncio
async def test_one_at_a_time_has_the_turn(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "WAIT_S", 0.02)
    second = asyncio.Event()

    async def wait() -> int:
        async with turn(db) as found:
            second.set()
            return found.fence

    async with turn(db) as mine:
        waiting = asyncio.create_task(wait())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(second.wait(), 0.4)
        assert mine.fence == await db.fetch_value("SELECT fence FROM chain_lease")
    assert await asyncio.wait_for(waiting, 30) == mine.fence + 1


@pytest.mark.asyncio
async def test_one_that_waits_and_loses_its_session_says_so(db: Database) -> None:
    waiting = (
        "SELECT pid FROM pg_stat_activity WHERE query LIKE '%pg_try_advisory_lock%' AND pid <> pg_backend_pid()"
        " AND datname = current_database()"
    )

    async def wait() -> None:
        async with turn(db):
            raise AssertionError("two have the turn")

    async with turn(db) as mine:
        task = asyncio.create_task(wait())
        async with asyncio.timeout(30):
            while not (found := await mine._connection.fetchval(waiting)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await mine._connection.fetchval("SELECT pg_terminate_backend($1)", found)
        with pytest.raises(TurnLost, match="waited for the turn"):
            await task


@pytest.mark.asyncio
async def test_a_round_reads_sweeps_and_tells_how_the_network_looks(db: Database) -> None:
    world = await World.make(db)
    account = await world.account()
    others: list[int] = []

    async def good() -> None:
        return

    async def further() -> None:
        others.append(world.chain.tick)

    loop = Loop(world.desk, good, [further], poll_s=0.01)
    world.chain.pay(world.keys[account], 5_000)
    world.chain.advance(4)
    await loop.round()
    await loop.round()
    assert others == [1004], "once on each new tick"
    assert await world.balance(account) == 5_000
    look = await db.run(status.read)
    assert (look.state, look.live_tick, look.cursor_tick, look.lag_ticks) == (ChainState.OK, 1004, 1002, 2)

    world.chain.down = True
    await loop.round()
    look = await db.run(status.read)
    assert (look.state, look.problem) == (ChainState.UNREACHABLE, "the fake network is down")
    assert await world.balance(account) == 5_000
    world.chain.down = False

    tx_id = world.chain.pay(world.keys[account], 700)
    world.chain.misstated.add(tx_id)
    world.chain.advance(4)
    await loop.round()
    assert (await db.run(status.read)).state is ChainState.UNTRUSTED
    assert others[-1] == 1008, "a doubt about deposits holds up nobody else"
    world.chain.misstated.clear()
    world.chain.advance(20)
    await loop.round()
    assert (await db.run(status.read)).state is ChainState.OK
    assert await world.balance(account) == 5_700


@pytest.mark.asyncio
async def test_another_network_is_never_read(db: Database) -> None:
    world = await World.make(db)

    async def refused() -> None:
        raise WrongNetwork("it is a devnet", remedy="Name another address")

    world.chain.advance(5)
    asked = world.chain.asked
    await Loop(world.desk, refused, poll_s=0.01).round()
    look = await db.run(status.read)
    assert (look.state, look.problem) == (ChainState.REFUSED, "it is a devnet. Name another address")
    assert world.chain.asked == asked
