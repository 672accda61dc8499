# SPDX-License-Identifier: Apache-2.0
"""Each replica names the gateways of all, for as long as they are there."""

from functools import partial
from pathlib import Path

import pytest

from qubix_coordinator.db.database import Database, execute
from qubix_coordinator.http.mesh import Link
from qubix_coordinator.market import gateways
from qubix_protocol.keys import SigningKey
from qubix_protocol.link import LinkOpen
from tests.db.support_http import assembled

pytestmark = pytest.mark.asyncio


async def test_those_that_were_heard_lately_are_named_and_others_forgotten(db: Database) -> None:
    await db.run(lambda tx: gateways.beat(tx, "one", ("/ip4/127.0.0.1/tcp/1",)))
    await db.run(lambda tx: gateways.beat(tx, "two", ("/ip4/127.0.0.1/tcp/2", "/ip4/127.0.0.1/tcp/3")))
    await db.run(lambda tx: gateways.beat(tx, "one", ("/ip4/127.0.0.1/tcp/4",)))
    assert await db.run(gateways.addresses) == {f"/ip4/127.0.0.1/tcp/{port}" for port in (2, 3, 4)}
    await db.run(lambda tx: gateways.leave(tx, "two"))
    assert await db.run(gateways.addresses) == {"/ip4/127.0.0.1/tcp/4"}
    silent = f"UPDATE gateway SET seen_at = now() - interval '{gateways.HEARD_S + 1} seconds'"
    await db.run(lambda tx: execute(tx, silent))
    assert await db.run(gateways.addresses) == frozenset()


async def test_a_replica_names_the_gateways_of_another(db: Database, tmp_path: Path) -> None:
    one, other = [(await assembled(db, tmp_path)).context.mesh for _ in range(2)]
    peer = SigningKey.generate().peer_id
    opened = LinkOpen(gateway_peer_id=peer, addresses=("/ip4/127.0.0.1/tcp/1",), network="devnet")
    link = Link(one, opened, lambda task: task.close())
    one.add(link)
    assert await other.gateway_addresses() == ()
    await db.run(partial(one.write_gateways, frozenset()))
    assert await one.gateway_addresses() == await other.gateway_addresses() == opened.addresses
    one.remove(link)
    await db.run(partial(one.write_gateways, frozenset({peer})))
    assert await other.gateway_addresses() == ()
