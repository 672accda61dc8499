# SPDX-License-Identifier: Apache-2.0
"""What nobody needs is removed, row and object; what a job needs never is, also when it is submitted meanwhile."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest

from qubix_coordinator.artifacts import service
from qubix_coordinator.artifacts.store import ArtifactStore
from qubix_coordinator.artifacts.uploads import Uploads
from qubix_coordinator.db.database import Database, Tx, execute
from qubix_coordinator.errors import Refused
from qubix_coordinator.jobs import retention
from qubix_coordinator.settings import Settings
from tests.db.jobs_world import METAS, UNITS, World

pytestmark = pytest.mark.asyncio
DAY_S = 86_400
KEEP_S = 30 * DAY_S


class Shelf:
    """A world whose artifacts are really stored."""

    def __init__(self, world: World, folder: Path) -> None:
        settings = Settings(data_dir=folder)
        self.world, self.owner = world, world.consumer.account_id
        self.store = ArtifactStore.open(settings)
        self.uploads = Uploads.open(world.db, self.store, settings)
        self.inputs = [world.input_of(name, meta)[0] for name, meta in METAS.items()]

    async def upload(self, content: bytes) -> bytes:
        async def body() -> Any:
            yield content

        digest, size = hashlib.sha256(content).digest(), len(content)
        done = await self.uploads.receive(self.owner, digest, size, body(), first=0, last=size - 1)
        assert done.complete
        return digest

    async def stored(self) -> set[bytes]:
        return {bytes(row["digest"]) for row in await self.world.db.fetch("SELECT digest FROM artifact")}

    async def age(self, days: float) -> None:
        """Everything that was announced, and every job that ended, did so earlier."""

        async def step(tx: Tx) -> None:
            await execute(
                tx, "UPDATE artifact SET announced_at = announced_at - make_interval(secs => $1)", days * DAY_S
            )
            await execute(tx, "UPDATE job SET ended_ms = ended_ms - $1", round(days * DAY_S * 1000))

        await self.world.db.run(step)

    async def clean(self) -> int:
        await retention.give_up_unneeded(self.world.db, keep_s=KEEP_S, now_ms=self.world.desk.now_ms())
        return await self.uploads.expire()

    def objects(self) -> int:
        root = self.uploads.staging._folder.parent / "artifacts"
        return sum(path.is_file() for path in root.rglob("*"))


async def shelf_of(db: Database, folder: Path) -> Shelf:
    return Shelf(await World(db).open(), folder)


async def test_unused_uploads_go_after_a_while_with_their_objects(db: Database, tmp_path: Path) -> None:
    shelf = await shelf_of(db, tmp_path)
    digest = await shelf.upload(b"never used")
    assert shelf.objects() == 1
    await shelf.age(29)
    assert await shelf.clean() == 0
    await shelf.upload(b"never used")
    await shelf.age(2)
    assert await shelf.clean() == 2, "the inputs of the world, and not what was announced again"
    assert await shelf.stored() == {digest}
    await shelf.age(29)
    assert await shelf.clean() == 1
    assert shelf.objects() == 0
    await shelf.upload(b"never used")
    assert await shelf.store.head(shelf.owner, digest, 5) == b"never"


async def test_a_job_keeps_its_inputs_and_outputs_until_long_after_its_end(db: Database, tmp_path: Path) -> None:
    shelf = await shelf_of(db, tmp_path)
    world = shelf.world
    node = await world.node()
    view = await world.submit()
    await shelf.age(1000)
    assert await shelf.clean() == 0, "it waits"
    await world.engine.tick()
    await node.accept()
    link = await node.work(0, UNITS, 2_500)
    await shelf.age(1000)
    assert await shelf.clean() == 0, "it runs"
    await node.report()
    await shelf.age(1000)
    assert await shelf.clean() == 0, "it is checked"
    await world.check()
    assert (await world.job(view.job_id)).state == "settled"
    await shelf.age(29)
    assert await shelf.clean() == 0, "it ended lately"
    assert await shelf.stored() == {*shelf.inputs, link.output_digest}
    await shelf.age(2)
    assert await shelf.clean() == 3
    assert await shelf.stored() == set()
    with pytest.raises(Refused):
        await world.submit()


async def test_a_job_of_another_account_keeps_nothing(db: Database, tmp_path: Path) -> None:
    shelf = await shelf_of(db, tmp_path)
    await shelf.world.submit()
    other = await World(db).open()
    await shelf.age(31)
    assert await shelf.clean() == 2
    rows = await db.fetch("SELECT DISTINCT account_id FROM artifact")
    assert [row["account_id"] for row in rows] == [shelf.owner] != [other.consumer.account_id]


async def test_submitting_while_things_are_removed_never_leaves_a_job_without_inputs(
    db: Database, tmp_path: Path
) -> None:
    """Whoever comes first wins: the job keeps its inputs, or is refused because they are gone."""
    shelf = await shelf_of(db, tmp_path)
    submitted = refused = 0
    for turn in range(12):
        for name, meta in METAS.items():
            await shelf.world.store(*shelf.world.input_of(name, meta), meta)
        await shelf.age(1000)

        async def submit(turn: int = turn) -> None:
            await asyncio.sleep(0.002 * turn)
            await shelf.world.submit()

        job, _ = await asyncio.gather(submit(), shelf.clean(), return_exceptions=True)
        if job is None:
            submitted += 1
            assert await shelf.stored() >= set(shelf.inputs)
        else:
            assert isinstance(job, Refused), job
            refused += 1
        await db.run(lambda tx: execute(tx, "DELETE FROM job_input"))
    assert submitted + refused == 12


async def test_what_a_submission_holds_is_passed_over(db: Database, tmp_path: Path) -> None:
    shelf = await shelf_of(db, tmp_path)
    await shelf.age(31)
    async with db.transaction() as tx:
        await service.keep(tx, shelf.owner, shelf.inputs)
        assert await shelf.clean() == 0
    assert await shelf.clean() == 2


async def test_a_crash_between_object_and_row_leaves_nothing_usable(db: Database, tmp_path: Path) -> None:
    shelf = await shelf_of(db, tmp_path)
    digest = await shelf.upload(b"half removed")
    await shelf.age(31)
    assert await retention.give_up_unneeded(db, keep_s=KEEP_S, now_ms=shelf.world.desk.now_ms()) == 3
    await shelf.store.delete(shelf.owner, digest)
    found = await shelf.uploads.announce(shelf.owner, digest, len(b"half removed"))
    assert (found.complete, found.offset) == (False, 0)
    await shelf.upload(b"half removed")
    assert await shelf.store.head(shelf.owner, digest, 4) == b"half"
    assert await shelf.clean() == 2
    assert await shelf.stored() == {digest}
