# SPDX-License-Identifier: Apache-2.0
"""For whoever runs this: alive, ready, metrics, and the API's description."""

import asyncio
import math
from collections.abc import Awaitable
from typing import Any, Final

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest
from quart import Quart, Response
from quart.wrappers import Response as QuartResponse

from qubix_coordinator.deposits import status as chain
from qubix_coordinator.errors import QubixError
from qubix_coordinator.http import openapi
from qubix_coordinator.http.context import here
from qubix_coordinator.http.openapi import Text
from qubix_coordinator.http.routes import route
from qubix_coordinator.jobs import verifiers
from qubix_coordinator.ledger import audit_log
from qubix_protocol.api import View

_DATABASE_S: Final = 2.0
_UNCLAIMED_MS: Final = 10_000


class HealthView(View, frozen=True, kw_only=True):
    """The process answers."""

    alive: bool


class ReadyView(View, frozen=True, kw_only=True):
    """`ready` is whether jobs can be taken, run and checked; `missing` says what is not there yet.

    `verifier`: one was heard in the last seconds, and no finished attempt has waited for its check longer than any
    verifier would let it.
    """

    ready: bool
    database: bool
    gateways: int
    verifier: bool
    missing: tuple[str, ...]


class DocumentView(View, frozen=True, kw_only=True):
    """OpenAPI 3.1."""

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]


def install(app: Quart) -> None:
    @route(app, "GET", "/healthz", answer=HealthView, group="operation")
    async def healthz() -> HealthView:
        """Whether the process answers"""
        return HealthView(alive=True)

    @route(app, "GET", "/readyz", answer=ReadyView, group="operation")
    async def readyz() -> QuartResponse:
        """Whether jobs can be taken, run and checked; 503 while something is missing"""
        found = await readiness()
        return Response(msgspec.json.encode(found), 200 if found.ready else 503, content_type="application/json")

    @route(app, "GET", "/metrics", answer=Text, group="operation")
    async def metrics() -> QuartResponse:
        """Counters and gauges for Prometheus"""
        await _count_verifiers()
        await _measure_chain()
        await _tell_audit()
        return Response(generate_latest(here().metrics.registry), content_type=CONTENT_TYPE_LATEST)

    @route(app, "GET", "/openapi.json", answer=DocumentView, group="operation")
    async def openapi_json() -> QuartResponse:
        """This description"""
        if "qubix.openapi" not in app.extensions:
            app.extensions["qubix.openapi"] = msgspec.json.encode(openapi.describe(app))
        return Response(app.extensions["qubix.openapi"], content_type="application/json")


async def readiness() -> ReadyView:
    context = here()
    database = await _answered(context.db.fetch_value("SELECT true"))
    heard = database and await _answered(verifiers_heard())
    taken = database and await _answered(_checks_are_made())
    gateways = context.mesh.gateways
    missing = [
        *([] if database else ["the database does not answer"]),
        *([] if gateways else ["no gateway is connected"]),
        *([] if heard or not database else ["no verifier was heard lately"]),
        *([] if taken or not heard else ["checks wait and no verifier takes them"]),
    ]
    return ReadyView(
        ready=not missing, database=database, gateways=gateways, verifier=heard and taken, missing=tuple(missing)
    )


async def verifiers_heard() -> int:
    return await here().db.run(verifiers.heard)


async def _checks_are_made() -> bool:
    now_ms = here().now_ms()
    return not await here().db.fetch_value(
        "SELECT EXISTS (SELECT FROM attempt WHERE state = 'verifying' AND ended_ms < $1"
        " AND (claim_until_ms IS NULL OR claim_until_ms < $2))",
        now_ms - _UNCLAIMED_MS,
        now_ms,
    )


async def _count_verifiers() -> None:
    """What cannot be known is not a number."""
    gauge = here().metrics.verifiers
    try:
        async with asyncio.timeout(_DATABASE_S):
            gauge.set(await verifiers_heard())
    except (QubixError, TimeoutError):
        gauge.set(math.nan)


async def _measure_chain() -> None:
    context = here()
    try:
        async with asyncio.timeout(_DATABASE_S):
            look = await context.db.run(chain.read)
    except (QubixError, TimeoutError):
        context.metrics.chain_ok.set(math.nan)
        context.metrics.chain_lag.set(math.nan)
        return
    heard = look.checked_ms + chain.SILENT_MS >= context.now_ms()
    context.metrics.chain_ok.set(heard and look.state is chain.ChainState.OK)
    context.metrics.chain_lag.set(math.nan if look.lag_ticks is None else look.lag_ticks)


async def _tell_audit() -> None:
    """Of the newest audit, whoever made it."""
    metrics = here().metrics
    try:
        async with asyncio.timeout(_DATABASE_S):
            found = await here().db.run(audit_log.last)
    except (QubixError, TimeoutError):
        found = None
    metrics.audit_at.set(found.at_ms / 1000 if found else math.nan)
    _tell_counts(metrics.audit_violations, found.violations if found else {})
    _tell_counts(metrics.audit_unknown, found.unknown if found else {})


def _tell_counts(gauge: Gauge, counts: dict[str, int]) -> None:
    gauge.clear()
    for check, count in counts.items():
        gauge.labels(check).set(count)


async def _answered(question: Awaitable[object]) -> bool:
    try:
        async with asyncio.timeout(_DATABASE_S):
            return bool(await question)
    except (QubixError, TimeoutError):
        return False
