# SPDX-License-Identifier: Apache-2.0
"""Accounts, tokens, nodes and order keys: idempotent where they must be, one owner for each."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from qubix_coordinator.accounts import order_keys, sessions
from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts.rules import Purpose, Scope, digest_of_token, looks_like_token, token_of
from qubix_coordinator.db.database import Database, Tx
from qubix_coordinator.errors import Conflict, InvalidInput, NotFound, OrderKeyUnknown, Unauthorised
from qubix_protocol.keys import SigningKey, peer_id

T = TypeVar("T")


def key(n: int) -> bytes:
    return SigningKey(bytes([n]) * 32).public


async def refused(db: Database, kind: type[Exception], step: Callable[[Tx], Awaitable[T]]) -> Exception:
    with pytest.raises(kind) as found:
        await db.run(step)
    return found.value


@pytest.mark.asyncio
async def test_a_token_opens_its_account_until_revoked(db: Database) -> None:
    alice = await db.run(lambda tx: accounts.create_account(tx, "alice"))
    bob = await db.run(lambda tx: accounts.create_account(tx, "bob"))
    token = await db.run(lambda tx: accounts.create_token(tx, alice, {Scope.USER, Scope.OPERATOR}))
    assert looks_like_token(token)
    who = await db.run(lambda tx: accounts.authenticate(tx, token))
    assert (who.account_id, who.scopes) == (alice, {Scope.USER, Scope.OPERATOR})
    assert who.may(Scope.OPERATOR)
    assert not who.may(Scope.GATEWAY)

    kept = await db.fetch("SELECT * FROM api_token")
    assert kept[0]["digest"] == digest_of_token(token)
    assert token not in str(kept)
    assert kept[0]["last_used_at"] is not None

    token_id = kept[0]["id"]
    await refused(db, NotFound, lambda tx: sessions.revoke(tx, bob, token_id))
    await db.run(lambda tx: sessions.revoke(tx, alice, token_id))
    await db.run(lambda tx: sessions.revoke(tx, alice, token_id))
    await refused(db, Unauthorised, lambda tx: accounts.authenticate(tx, token))
    assert [found.name for found in await db.run(lambda tx: sessions.sessions_of(tx, alice))] == ["token"]


@pytest.mark.asyncio
@pytest.mark.parametrize("token", ["", "qx_", "qx_" + "A" * 43, "x" * 10_000, "qx_" + "é" * 43, "\0"])
async def test_other_tokens_are_refused(db: Database, token: str) -> None:
    await refused(db, Unauthorised, lambda tx: accounts.authenticate(tx, token))


@pytest.mark.asyncio
async def test_tokens_are_bounded_and_need_an_account(db: Database) -> None:
    alice = await db.run(lambda tx: accounts.create_account(tx, "alice"))

    async def fill(tx: Tx) -> None:
        for _ in range(accounts.TOKENS_MAX):
            await accounts.create_token(tx, alice, {Scope.USER})

    await db.run(fill)
    await refused(db, Conflict, lambda tx: accounts.create_token(tx, alice, {Scope.USER}))
    await refused(db, NotFound, lambda tx: accounts.create_token(tx, uuid.uuid4(), {Scope.USER}))
    bob = await db.run(lambda tx: accounts.create_account(tx, "bob"))
    with pytest.raises(Exception, match="api_token_scopes_some"):
        await db.run(lambda tx: accounts.create_token(tx, bob, set()))


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["", "  ", "x" * 101])
async def test_names_are_bounded(db: Database, name: str) -> None:
    problem = await refused(db, InvalidInput, lambda tx: accounts.create_account(tx, name))
    assert isinstance(problem, InvalidInput)
    assert problem.field == "name"


@pytest.mark.asyncio
async def test_enrolling_twice_or_at_once_is_one_node_of_one_account(db: Database) -> None:
    peer = peer_id(key(1))
    nodes = await asyncio.gather(*(db.run(lambda tx: accounts.ensure_node(tx, peer)) for _ in range(8)))
    assert len({node.account_id for node in nodes}) == 1
    assert bytes(nodes[0].public_key) == key(1)
    assert await db.fetch_value("SELECT count(*) FROM account") == 1
    other = await db.run(lambda tx: accounts.ensure_node(tx, peer_id(key(2))))
    assert other.account_id != nodes[0].account_id
    assert await db.run(lambda tx: accounts.account_of_node(tx, peer)) == nodes[0].account_id
    assert await db.run(lambda tx: accounts.account_of_key(tx, key(1))) == nodes[0].account_id
    await refused(db, InvalidInput, lambda tx: accounts.ensure_node(tx, "nonsense"))
    await refused(db, NotFound, lambda tx: accounts.account_of_node(tx, peer_id(key(3))))


@pytest.mark.asyncio
async def test_incarnations_count_and_never_repeat(db: Database) -> None:
    peer = peer_id(key(1))
    await db.run(lambda tx: accounts.ensure_node(tx, peer))
    assert await db.run(lambda tx: accounts.incarnation(tx, peer)) == 0
    counted = await asyncio.gather(*(db.run(lambda tx: accounts.next_incarnation(tx, peer)) for _ in range(5)))
    assert sorted(counted) == [1, 2, 3, 4, 5]
    assert await db.run(lambda tx: accounts.incarnation(tx, peer)) == 5
    await refused(db, NotFound, lambda tx: accounts.next_incarnation(tx, peer_id(key(9))))


@pytest.mark.asyncio
async def test_the_first_order_binds_its_key(db: Database) -> None:
    alice = await db.run(lambda tx: accounts.create_account(tx, "alice"))
    bob = await db.run(lambda tx: accounts.create_account(tx, "bob"))
    for _ in range(2):
        await db.run(lambda tx: order_keys.use(tx, alice, key(1)))
    another = await refused(db, OrderKeyUnknown, lambda tx: order_keys.use(tx, alice, key(2)))
    assert "qubix wallet keys add" in str(vars(another)["remedy"])
    await refused(db, Conflict, lambda tx: order_keys.use(tx, bob, key(1)))
    await refused(db, InvalidInput, lambda tx: order_keys.use(tx, bob, b"short"))
    await db.run(lambda tx: order_keys.use(tx, bob, key(2)))


@pytest.mark.asyncio
async def test_a_key_speaks_for_one_account(db: Database) -> None:
    async def first(tx: Tx) -> uuid.UUID:
        return await accounts.ensure_account_of_key(tx, key(4), Purpose.NODE, "node")

    assert await db.run(first) == await db.run(first)
    alice = await db.run(lambda tx: accounts.create_account(tx, "alice"))
    await refused(db, Conflict, lambda tx: order_keys.use(tx, alice, key(4)))


def test_tokens_carry_256_random_bits() -> None:
    assert token_of(bytes(32)) == "qx_" + "A" * 43
    with pytest.raises(ValueError):
        token_of(bytes(31))
