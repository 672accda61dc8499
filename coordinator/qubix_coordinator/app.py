# SPDX-License-Identifier: Apache-2.0
"""The composition root: makes every part of a coordinator once and owns the life of its tasks."""

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Final, cast

from quart import Quart

from qubix_coordinator import chores, collector, outbox
from qubix_coordinator.accounts import challenges, pairings
from qubix_coordinator.artifacts.store import ArtifactStore
from qubix_coordinator.artifacts.uploads import Uploads
from qubix_coordinator.barriers import hold
from qubix_coordinator.chores import Chore
from qubix_coordinator.clock import Clock, SystemClock
from qubix_coordinator.db import embedded
from qubix_coordinator.db.database import Database
from qubix_coordinator.db.migrations import migrate
from qubix_coordinator.deposits import reserves
from qubix_coordinator.disputes import money as disputes
from qubix_coordinator.disputes.engine import Engine as DisputesEngine
from qubix_coordinator.errors import Unavailable
from qubix_coordinator.feed.hub import Feeds
from qubix_coordinator.http import bootstrap, guard
from qubix_coordinator.http.api import PREFIX
from qubix_coordinator.http.balances import Balances, BalanceSource, qubic_network
from qubix_coordinator.http.context import Context
from qubix_coordinator.http.mesh import Mesh
from qubix_coordinator.http.metrics import Metrics
from qubix_coordinator.http.rates import Doors, Turns
from qubix_coordinator.http.server import Server, bind, create_app, server_for
from qubix_coordinator.jobs import retention
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.engine import Engine
from qubix_coordinator.ledger import audit_log
from qubix_coordinator.ledger import read as ledger
from qubix_coordinator.market import learned, standing, words
from qubix_coordinator.market.due import Engine as MarketEngine
from qubix_coordinator.models import service as models
from qubix_coordinator.outbox.notifier import Notifier
from qubix_coordinator.rentals.engine import Engine as RentalsEngine
from qubix_coordinator.settings import Settings
from qubix_coordinator.signals import StopSignal
from qubix_coordinator.spots.engine import Engine as SpotsEngine
from qubix_coordinator.telemetry import rollups as telemetry
from qubix_coordinator.trials import probes
from qubix_coordinator.trials.engine import Engine as TrialsEngine
from qubix_coordinator.wishes import service as wishes
from qubix_coordinator.withdrawals.desk import Desk as WithdrawalDesk
from qubix_coordinator.withdrawals.engine import Engine as WithdrawalEngine
from qubix_protocol import barriers
from qubix_protocol.units import Network

log = logging.getLogger(__name__)
_MINUTE_S: Final = 60.0
_HOUR_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Coordinator:
    """A whole coordinator that does nothing yet: `run` its tasks, serve its `app`."""

    context: Context
    app: Quart
    engine: Engine
    withdrawals: WithdrawalEngine
    rentals: RentalsEngine
    disputes: DisputesEngine
    spots: SpotsEngine
    trials: TrialsEngine
    market: MarketEngine

    async def run(self) -> None:
        """Everything but the HTTP server, until cancelled. A task that fails ends them all."""
        context = self.context
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(context.notifier.run(), name="notifier")
            tasks.create_task(context.feeds.run(), name="feeds")
            tasks.create_task(context.mesh.run(), name="mesh")
            tasks.create_task(self.engine.run(), name="engine")
            tasks.create_task(self.withdrawals.run(), name="withdrawals")
            tasks.create_task(self.rentals.run(), name="rentals")
            tasks.create_task(self.disputes.run(), name="disputes")
            tasks.create_task(self.spots.run(), name="spots")
            tasks.create_task(self.trials.run(), name="trials")
            tasks.create_task(self.market.run(), name="market")
            tasks.create_task(chores.repeat(context.db, _MINUTE_S, _each_minute(context)), name="minutes")
            tasks.create_task(chores.repeat(context.db, _HOUR_S, _each_hour(context)), name="hours")


async def assemble(
    db: Database, settings: Settings, url: str, clock: Clock | None = None, qubic: BalanceSource | None = None
) -> Coordinator:
    """`url` is where others reach this coordinator, `qubic` what is asked for balances on the chain."""
    key = bootstrap.coordinator_key(settings.data_dir)
    await bootstrap.ensure_tokens(db, settings.data_dir)
    desk = Desk(db, settings, clock or SystemClock(), key, cast(Network, settings.network))
    notifier, metrics = Notifier(db, poll_ms=settings.outbox_poll_ms), Metrics()
    context = Context(
        desk=desk,
        uploads=Uploads.open(db, ArtifactStore.open(settings), settings),
        notifier=notifier,
        feeds=Feeds(db, notifier, desk.now_ms),
        mesh=Mesh(desk, notifier, metrics, f"{url}{PREFIX}/artifacts"),
        metrics=metrics,
        hosts=guard.allowed_hosts(settings),
        url=url,
        balances=Balances(qubic, desk.clock.monotonic_s),
        doors=Doors(visits=Turns(max(1, settings.database_pool_max // 3))),
    )
    withdrawals = WithdrawalEngine(WithdrawalDesk(db, settings, desk.clock))
    return Coordinator(
        context=context,
        app=create_app(context),
        engine=Engine(desk),
        withdrawals=withdrawals,
        rentals=RentalsEngine(desk),
        disputes=DisputesEngine(desk),
        spots=SpotsEngine(desk),
        trials=TrialsEngine(desk),
        market=MarketEngine(db, desk.clock),
    )


async def serve(settings: Settings) -> None:
    """Until SIGTERM or SIGINT. Raises a QubixError when something it needs is not to be had."""
    if settings.barriers is not None:
        barriers.install(partial(hold, settings.barriers))
    stop = StopSignal()
    sock = bind(settings.http_host, settings.http_port)
    with contextlib.closing(sock):
        url = settings.public_url.rstrip("/") or _url(settings.http_host, sock.getsockname()[1])
        async with _database(settings) as (db, own_server), qubic_network(settings.qubic_url) as qubic:
            coordinator = await assemble(db, settings, url, qubic=qubic)
            server = server_for(coordinator.app, settings.trusted_proxies)
            async with asyncio.TaskGroup() as tasks:
                background = tasks.create_task(coordinator.run(), name="coordinator")
                serving = tasks.create_task(server.serve([sock]), name="http")
                watching = tasks.create_task(_until_ended(own_server), name="database")
                await server.ready.wait()
                collector.settle()
                _announce(settings, url)
                stop.started()
                await stop.asked.wait()
                log.info("coordinator.stopping")
                await _stop(coordinator, server, serving)
                background.cancel()
                watching.cancel()
    log.info("coordinator.stopped")


async def _stop(coordinator: Coordinator, server: Server, serving: "asyncio.Task[None]") -> None:
    """WebSockets say goodbye, requests get a second to end."""
    coordinator.context.closing.set()
    server.should_exit = True
    await serving


@contextlib.asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[tuple[Database, embedded.Server | None]]:
    """The one that DATABASE_URL names, or our own for as long as this process runs; up to date."""
    async with contextlib.AsyncExitStack() as stack:
        dsn, own = settings.database_url, None
        if not dsn:
            own = await stack.enter_async_context(embedded.running(settings.postgres_dir))
            dsn = own.dsn
        await migrate(dsn, settings.network)
        db = await Database.connect(settings, dsn)
        stack.push_async_callback(db.close)
        yield db, own


async def _until_ended(own: embedded.Server | None) -> None:
    """A server of somebody else is waited for when it goes; our own can come back only with this process."""
    if own is not None:
        status = await own.wait()
        raise Unavailable(f"our own PostgreSQL ended with status {status}", remedy="Start the coordinator again")


def _url(host: str, port: int) -> str:
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{reachable}:{port}"


def _announce(settings: Settings, url: str) -> None:
    log.info("coordinator.ready", extra={"url": url, "network": settings.network})
    if settings.ready_fd is not None:
        line = json.dumps({"process": "coordinator", "pid": os.getpid(), "url": url, "network": settings.network})
        with os.fdopen(settings.ready_fd, "w") as ready:
            ready.write(line + "\n")


def _each_minute(context: Context) -> list[Chore]:
    db = context.db
    return [
        Chore("outbox", lambda: db.run(lambda tx: outbox.prune(tx, context.settings.outbox_keep_s))),
        Chore("ledger", lambda: db.run(ledger.sweep)),
        Chore("fund", lambda: db.run(lambda tx: disputes.feed_fund(context.desk, tx))),
        Chore("challenges", lambda: db.run(lambda tx: challenges.sweep(tx, context.clock.now()))),
        Chore("pairings", lambda: db.run(lambda tx: pairings.sweep(tx, now_ms=context.now_ms()))),
        Chore("samples", lambda: telemetry.roll(db, now_ms=context.now_ms())),
        Chore("probes", lambda: probes.sweep(db, context.uploads, now_ms=context.now_ms())),
        Chore("models", lambda: db.run(lambda tx: models.sweep(tx, now_ms=context.now_ms()))),
        Chore("wishes", lambda: db.run(lambda tx: wishes.remind(tx, now_ms=context.now_ms()))),
    ]


def _each_hour(context: Context) -> list[Chore]:
    db, settings = context.db, context.settings
    tend = partial(
        telemetry.tend,
        db,
        sample_keep_s=settings.sample_keep_s,
        minute_keep_s=settings.sample_minute_keep_s,
        hour_keep_s=settings.sample_hour_keep_s,
    )
    unneeded = partial(retention.give_up_unneeded, db, keep_s=settings.artifact_keep_s)
    kept = partial(reserves.refresh, db, context.key, context.network, fresh_ms=settings.reserves_fresh_s * 1000)
    return [
        Chore("samples", lambda: tend(now_ms=context.now_ms())),
        Chore("standing", lambda: standing.refresh(db, context.now_ms())),
        Chore("forecasts", lambda: learned.forget(db, now_ms=context.now_ms())),
        Chore("words", lambda: words.sweep(db)),
        Chore("artifacts", lambda: unneeded(now_ms=context.now_ms())),
        Chore("uploads", lambda: _expire(context)),
        Chore("reserves", lambda: kept(now_ms=context.now_ms())),
        Chore("audit", lambda: audit_log.nightly(db, context.now_ms(), check_s=settings.statement_timeout_s)),
    ]


async def _expire(context: Context) -> None:
    if removed := await context.uploads.expire():
        log.info("artifacts.removed", extra={"count": removed})
