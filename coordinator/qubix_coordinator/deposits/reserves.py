# SPDX-License-Identifier: Apache-2.0
"""Proofs of reserves (trust.md M10): what is owed to everybody, counted in a Merkle-sum tree, beside what the
chain said that we have.

All amounts are read by one statement; each balance on the chain has its tick. One is made when somebody asks and the
newest is not fresh any more, and every hour; each account finds its own leaf in the newest.
"""

import asyncio
import os
from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

from qubix_chain import identity
from qubix_coordinator.db.database import Database, Tx, execute, one, rows, value
from qubix_coordinator.deposits import read
from qubix_coordinator.errors import NotFound
from qubix_protocol import merkle_sum
from qubix_protocol.envelope import ANYONE, seal
from qubix_protocol.keys import SigningKey
from qubix_protocol.reserves import Holding, Reserves, ReservesProof, ReservesView, StepView, read_statement, view_of
from qubix_protocol.units import Network

KEPT = 3
"""Of so many of the newest the leaves are kept."""
_LOCK = 0x72737276

# Who owns what, wherever it stands: free, in holds, set aside for withdrawals, staked in disputes; and the market's.
# What a dispute's re-run was lent is in the hold of that run, and comes out of the first stake, the opener's (M7).
OWNED = """
    SELECT owner, sum(qu)::bigint AS amount_qu FROM (
        SELECT a.owner::text AS owner, a.balance_qu AS qu FROM ledger_account a WHERE a.kind = 'user'
        UNION ALL
        SELECT u.owner::text, e.balance_qu FROM ledger_account e JOIN hold h ON h.job_id = e.owner
            JOIN ledger_account u ON u.id = h.account_id WHERE e.kind = 'hold' AND e.balance_qu > 0
        UNION ALL
        SELECT u.owner::text, -paid.amount_qu FROM ledger_account w
            JOIN entry took ON took.account_id = w.id AND took.amount_qu > 0
            JOIN entry paid ON paid.transfer_id = took.transfer_id AND paid.amount_qu < 0
            JOIN ledger_account u ON u.id = paid.account_id
            WHERE w.kind = 'withdrawal' AND w.balance_qu > 0
        UNION ALL
        SELECT s.owner, CASE s.nth WHEN 1 THEN s.left_qu - s.all_qu + s.qu ELSE s.qu END FROM (
            SELECT u.owner::text AS owner, b.balance_qu AS left_qu, -paid.amount_qu AS qu,
                sum(-paid.amount_qu) OVER (PARTITION BY b.id) AS all_qu,
                row_number() OVER (PARTITION BY b.id ORDER BY paid.id) AS nth
            FROM ledger_account b JOIN entry took ON took.account_id = b.id AND took.amount_qu > 0
                JOIN transfer t ON t.id = took.transfer_id
                JOIN entry paid ON paid.transfer_id = t.id AND paid.amount_qu < 0
                JOIN ledger_account u ON u.id = paid.account_id
            WHERE b.kind = 'bond' AND b.balance_qu > 0 AND t.cause = 'bond:' || b.owner || ':' || u.owner) AS s
        UNION ALL
        SELECT b.kind, b.balance_qu FROM ledger_balance b WHERE b.kind IN ('fees', 'fund')
    ) AS part GROUP BY owner ORDER BY owner
"""


@dataclass(frozen=True, slots=True)
class _Leaf:
    owner: str
    amount_qu: int
    salt: bytes

    @property
    def node(self) -> merkle_sum.Node:
        return merkle_sum.leaf(self.owner, self.amount_qu, self.salt)


async def published(db: Database, key: SigningKey, network: Network, now_ms: int, *, fresh_ms: int) -> ReservesView:
    """The newest; made anew when it is older than `fresh_ms`. Replicas make one at a time."""
    await refresh(db, key, network, now_ms, fresh_ms=fresh_ms)
    row = await db.run(_newest)
    assert row is not None, "one was made just now"
    return view_of(row[1].hex(), read_statement(row[1].hex(), network=network, coordinator_key=key.public))


async def refresh(db: Database, key: SigningKey, network: Network, now_ms: int, *, fresh_ms: int) -> bool:
    """Makes one if the newest is not fresh; False when there was nothing to do."""

    async def step(tx: Tx) -> bool:
        await value(tx, "SELECT pg_advisory_xact_lock($1)", _LOCK)
        newest = await one(tx, "SELECT at_ms FROM reserves ORDER BY id DESC LIMIT 1")
        if newest is not None and now_ms - newest["at_ms"] < fresh_ms:
            return False
        await _publish(tx, key, network, now_ms)
        return True

    newest = await db.fetch("SELECT at_ms FROM reserves ORDER BY id DESC LIMIT 1")
    if newest and now_ms - newest[0]["at_ms"] < fresh_ms:
        return False
    return await db.run(step)


async def _publish(tx: Tx, key: SigningKey, network: Network, now_ms: int) -> None:
    leaves = [_Leaf(row["owner"], row["amount_qu"], os.urandom(32)) for row in await rows(tx, OWNED)]
    secret = os.urandom(32)
    tree = await asyncio.to_thread(lambda: merkle_sum.Tree([one.node for one in leaves], secret))
    holdings = tuple(
        Holding(identity=identity.encode(one.public_key), role=one.role, balance_qu=one.balance_qu, tick=one.tick)
        for one in await read.holdings(tx)
        if one.balance_qu or one.role == "hot"
    )
    statement = Reserves(
        network=network,
        root=tree.root.digest,
        owed_qu=tree.root.sum_qu,
        leaves=tree.size,
        holdings=holdings,
        at_ms=now_ms,
    )
    raw = seal(statement, key, network=network, audience=ANYONE, incarnation=0, counter=0, expires_ms=now_ms)
    made = await value(
        tx, "INSERT INTO reserves (at_ms, statement, secret) VALUES ($1, $2, $3) RETURNING id", now_ms, raw, secret
    )
    await execute(
        tx,
        "INSERT INTO reserves_leaf (reserves_id, no, owner, amount_qu, salt)"
        " SELECT $1, n - 1, o, a, s FROM unnest($2::text[], $3::bigint[], $4::bytea[])"
        " WITH ORDINALITY AS l (o, a, s, n)",
        made,
        [leaf.owner for leaf in leaves],
        [leaf.amount_qu for leaf in leaves],
        [leaf.salt for leaf in leaves],
    )
    await execute(tx, "DELETE FROM reserves_leaf WHERE reserves_id <= $1", made - KEPT)


async def proof_of(db: Database, account_id: UUID) -> ReservesProof:
    """The account's own leaf in the newest, with its path. Raises NotFound for one that came later."""
    newest = await db.run(_newest)
    if newest is None:
        raise NotFound("no proof of reserves was published yet", remedy="GET /reserves makes the first one")
    leaves = await db.run(lambda tx: _leaves(tx, newest[0]))
    at = next((at for at, leaf in enumerate(leaves) if leaf.owner == str(account_id)), None)
    if at is None:
        raise NotFound(
            "your account had nothing in it yet when the newest proof of reserves was made",
            remedy="Ask again once the next one is made (QUBIX_RESERVES_FRESH_S), a minute from then at most",
        )
    tree = await asyncio.to_thread(lambda: _tree(tuple(leaf.node for leaf in leaves), newest[2]))
    return ReservesProof(
        statement=newest[1].hex(),
        account_id=str(account_id),
        amount_qu=leaves[at].amount_qu,
        salt=leaves[at].salt.hex(),
        path=tuple(
            StepView(digest=step.sibling.digest.hex(), sum_qu=step.sibling.sum_qu, left=step.left)
            for step in tree.path(at)
        ),
    )


@lru_cache(maxsize=1)
def _tree(nodes: tuple[merkle_sum.Node, ...], secret: bytes) -> merkle_sum.Tree:
    return merkle_sum.Tree(nodes, secret)


async def _newest(tx: Tx) -> tuple[int, bytes, bytes] | None:
    row = await one(tx, "SELECT id, statement, secret FROM reserves ORDER BY id DESC LIMIT 1")
    return None if row is None else (row["id"], bytes(row["statement"]), bytes(row["secret"]))


async def _leaves(tx: Tx, reserves_id: int) -> list[_Leaf]:
    found = await rows(
        tx, "SELECT owner, amount_qu, salt FROM reserves_leaf WHERE reserves_id = $1 ORDER BY no", reserves_id
    )
    return [_Leaf(row["owner"], row["amount_qu"], bytes(row["salt"])) for row in found]
