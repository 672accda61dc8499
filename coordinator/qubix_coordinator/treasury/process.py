# SPDX-License-Identifier: Apache-2.0
"""The composition root of the chain process."""

import asyncio
import json
import logging
import os
from functools import partial

from qubix_chain import identity
from qubix_coordinator.barriers import hold
from qubix_coordinator.clock import SystemClock
from qubix_coordinator.db.database import Database, Tx, execute, value
from qubix_coordinator.deposits import pool
from qubix_coordinator.deposits.desk import ChainDesk
from qubix_coordinator.deposits.ports import Signer
from qubix_coordinator.errors import WrongDatabase
from qubix_coordinator.signals import StopSignal
from qubix_coordinator.treasury import master
from qubix_coordinator.treasury.loop import Loop
from qubix_coordinator.treasury.settings import ChainSettings
from qubix_coordinator.treasury.sources import Sources, open_sources
from qubix_coordinator.treasury.turn import Turn, turn
from qubix_coordinator.withdrawals.desk import Desk as WithdrawalsDesk
from qubix_coordinator.withdrawals.sender import Sender
from qubix_protocol import barriers

log = logging.getLogger(__name__)


async def serve(settings: ChainSettings) -> None:
    """Until SIGTERM or SIGINT. Raises a QubixError: TurnLost, WrongDatabase, BadMaster, Unavailable."""
    if settings.barriers is not None:
        barriers.install(partial(hold, settings.barriers))
    stop = StopSignal()
    secret, new = master.open_or_make(settings.master_path)
    signer = master.MasterSigner(secret)
    if new:
        log.warning("chain.master_made", extra={"file": str(settings.master_path), "advice": "keep a copy elsewhere"})
    db = await Database.connect(settings)
    try:
        await db.run(lambda tx: own(tx, signer))
        async with asyncio.TaskGroup() as tasks:
            acting = tasks.create_task(_act(settings, db, signer), name="chain")
            _announce(settings, signer)
            stop.started()
            await stop.asked.wait()
            acting.cancel()
    finally:
        await db.close()
    log.info("chain.stopped")


async def own(tx: Tx, signer: Signer) -> None:
    """Makes the database this master secret's for ever. Raises WrongDatabase when it is another's."""
    await execute(
        tx,
        "INSERT INTO treasury (public_key, role, derivation) VALUES ($1, 'hot', $2) ON CONFLICT DO NOTHING",
        signer.hot_public_key,
        master.DERIVATION,
    )
    known = bytes(await value(tx, "SELECT public_key FROM treasury WHERE role = 'hot'"))
    if known != signer.hot_public_key or await pool.check_signer(tx, signer) is not None:
        raise WrongDatabase(
            f"the database's QU are on {identity.encode(known)}, and the master secret gives"
            f" {identity.encode(signer.hot_public_key)}",
            remedy="Put back the master secret that this database was started with (QUBIX_MASTER_FILE)",
        )


async def _act(settings: ChainSettings, db: Database, signer: Signer) -> None:
    async with turn(db) as mine, open_sources(settings) as sources:
        log.info("chain.acting", extra={"fence": mine.fence, "network": settings.network})
        loop = make_loop(settings, db, signer, sources, mine)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(mine.until_lost(), name="turn")
            tasks.create_task(loop.run(), name="loop")


def make_loop(settings: ChainSettings, db: Database, signer: Signer, sources: Sources, mine: Turn) -> Loop:
    clock = SystemClock()
    desk = ChainDesk(db, sources.chain, signer, settings, clock, settings.network, mine.fence)
    sender = Sender(WithdrawalsDesk(db, settings, clock), sources.independent, signer, run=desk.run)
    return Loop(desk, sources.check, [sender.tick], poll_s=settings.chain_poll_ms / 1000)


def _announce(settings: ChainSettings, signer: Signer) -> None:
    hot = identity.encode(signer.hot_public_key)
    log.info("chain.ready", extra={"network": settings.network, "hot": hot})
    if settings.ready_fd is not None:
        line = {"process": "chain", "pid": os.getpid(), "network": settings.network, "identity": hot}
        with os.fdopen(settings.ready_fd, "w") as out:
            out.write(json.dumps(line) + "\n")
