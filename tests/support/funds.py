# SPDX-License-Identifier: Apache-2.0
"""Money for tests' accounts: a deposit as the chain process records it, without a chain.

Where a chain process runs, pay through the devnet instead: it knows no key of the identities made here.
"""

import asyncio
import hashlib
import itertools
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid5

import httpx

from qubix_coordinator.db.database import Database, Tx, execute, one, value
from qubix_coordinator.ledger import rules
from qubix_coordinator.ledger.post import post
from qubix_coordinator.settings import Settings

_NAMESPACE = UUID("3b1f1f0e-5a2b-4c58-9d52-6a8c4a3f6f11")
CREDITED_S = 120.0
_numbers = itertools.count(1)


def tx_id(key: str) -> str:
    """60 letters that nothing else has."""
    return "".join(chr(ord("a") + byte % 26) for byte in hashlib.sha512(key.encode()).digest()[:60])


async def deposit(tx: Tx, account_id: UUID, amount_qu: int, key: str = "") -> UUID:
    """Credits once for each `key`; without one, each time. Returns the transfer's id."""
    name = tx_id(f"{account_id} {key or f'{next(_numbers)} {secrets.token_hex(8)}'}")
    network = str(await value(tx, "SELECT name FROM network"))
    transfer = rules.deposit(account_id, amount_qu, network=network, tick=1, tx_id=name, output=0)
    identity_no = await _identity(tx, account_id)
    if await post(tx, [transfer]):
        await execute(
            tx,
            "INSERT INTO deposit (id, tick, tx_id, output, identity_no, account_id, source, amount_qu, evidence, state,"
            " reason, transfer_id, seen_ms) VALUES ($1, 1, $2, 0, $3, $4, $5, $6, 'money_flew', 'credited', '', $7, 0)",
            uuid5(_NAMESPACE, name),
            name,
            identity_no,
            account_id,
            b"\1" * 32,
            amount_qu,
            transfer.id,
        )
    return transfer.id


async def fund(db: Database, account_id: UUID, amount_qu: int, key: str = "") -> None:
    await db.run(lambda tx: deposit(tx, account_id, amount_qu, key))


def fund_by_faucet(client: Any, qubic_url: str, amount_qu: int) -> str:
    """A real deposit: the devnet's faucet pays the account's own identity, and the chain process credits it. Returns
    the transaction's id."""
    to = client.deposit_identity().identity
    answer = httpx.post(f"{qubic_url}/devnet/v1/faucet", json={"identity": to, "amount": amount_qu}, timeout=30)
    paid = str(answer.raise_for_status().json()["transaction_id"])
    end = time.monotonic() + CREDITED_S
    while not any(one.tx_id == paid and one.state != "seen" for one in client.deposits().deposits):
        assert time.monotonic() < end, f"the deposit {paid} was not credited"
        time.sleep(0.1)
    return paid


def fund_market(market: Any, client: Any, amount_qu: int) -> None:
    """The same for the account of an SDK client, in a market of real processes (`tests.support.market.Market`)."""
    account_id = UUID(client.account().account_id)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, _fund_database(market.env["DATABASE_URL"], account_id, amount_qu)).result()


async def fund_market_async(market: Any, client: Any, amount_qu: int) -> None:
    account = await client.account()
    await _fund_database(market.env["DATABASE_URL"], UUID(account.account_id), amount_qu)


async def _fund_database(dsn: str, account_id: UUID, amount_qu: int) -> None:
    db = await Database.connect(Settings(), dsn)
    try:
        await fund(db, account_id, amount_qu)
    finally:
        await db.close()


async def _identity(tx: Tx, account_id: UUID) -> int:
    known = await value(tx, "SELECT no FROM deposit_identity WHERE account_id = $1", account_id)
    if known is not None:
        return int(known)
    made = await one(
        tx,
        "INSERT INTO deposit_identity (no, public_key, account_id, assigned_at)"
        " VALUES ((SELECT coalesce(max(no) + 1, 0) FROM deposit_identity), $1, $2, now()) RETURNING no",
        secrets.token_bytes(32),
        account_id,
    )
    assert made is not None
    return int(made["no"])
