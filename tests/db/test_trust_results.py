# SPDX-License-Identifier: Apache-2.0
"""What a consumer can fetch over HTTP: what was paid, all of it, and nothing before (trust.md M3)."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts.rules import Scope
from qubix_coordinator.db.database import Database
from qubix_protocol import digests
from qubix_protocol.arrays import Array, from_npy, pack_arrays
from tests.db.jobs_world import UNITS, Node, World
from tests.db.support_http import Person, assembled, make_person

pytestmark = pytest.mark.asyncio
C = np.arange(UNITS * 4, dtype=np.float32).reshape(UNITS, 4)


async def deliver(node: Node, store: Any, folder: Path, start: int, stop: int, rows: Array) -> None:
    data = pack_arrays({"c": rows})
    staged = folder / "staged"
    staged.write_bytes(data)
    await store.finish_upload(node.world.consumer.account_id, hashlib.sha256(data).digest(), len(data), staged)
    await node.world.pass_time(1.0)
    link = node.next_link(start, stop, 500, data)
    await node.upload(link)
    await node.send(link)
    node.links.append(link)
    node.head = digests.of_link(link)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_nothing_is_read_before_it_is_paid_and_then_all_that_was(
    db: Database, tmp_path: Path, cancelled: bool
) -> None:
    world = await World(db).open()
    token = await db.run(lambda tx: accounts.create_token(tx, world.consumer.account_id, [Scope.USER]))
    person, stranger = Person(world.consumer.account_id, token), await make_person(db)
    coordinator = await assembled(db, tmp_path)
    client, store = coordinator.app.test_client(), coordinator.context.uploads.store
    node = await world.node()
    job_id = (await world.assigned()).job_id
    await node.accept()
    whole = f"/api/v1/jobs/{job_id}/result/c"

    async def status(path: str, who: Person, method: str = "GET", **headers: str) -> int:
        answer = await client.open(path, method=method, headers={**who.headers, **headers})
        return int(answer.status_code)

    async def nothing_is_read() -> None:
        first = f"/api/v1/artifacts/{node.links[0].output_digest.hex()}"
        assert await status(whole, person) == 409
        assert await status(whole, person, "HEAD") == 409
        assert await status(f"/api/v1/jobs/{job_id}/result", person) == 409
        for extra in ({}, {"Range": "bytes=0-0"}, {"Range": "bytes=-1"}):
            assert await status(first, person, **extra) == 404

    await deliver(node, store, tmp_path, 0, 50, C[:50])
    await nothing_is_read()
    if cancelled:
        await world.cancel(job_id)
    else:
        await deliver(node, store, tmp_path, 50, UNITS, C[50:])
        await node.report()
    await nothing_is_read()
    await world.check()
    answer = await client.get(whole, headers=person.headers)
    data = await answer.get_data()
    assert int(answer.headers["Content-Length"]) == len(data)
    assert np.array_equal(from_npy(bytes(data)), C[: 50 if cancelled else UNITS])
    for path in (whole, f"/api/v1/jobs/{job_id}", f"/api/v1/jobs/{job_id}/receipts"):
        assert await status(path, stranger) == 404
    assert await status(f"/api/v1/artifacts/{node.links[0].output_digest.hex()}", stranger) == 404
