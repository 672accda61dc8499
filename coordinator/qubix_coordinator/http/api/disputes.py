# SPDX-License-Identifier: Apache-2.0
"""Disputes: opened and answered by the sides of a job, decided by arbiters."""

from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.disputes import service as disputes
from qubix_coordinator.disputes import terms
from qubix_coordinator.http.api import api
from qubix_coordinator.http.context import here
from qubix_coordinator.http.routes import route
from qubix_protocol.disputes import (
    AnswerBody,
    DecisionBody,
    DisputeBody,
    DisputesView,
    DisputeView,
    EvidenceBody,
    JobDisputesView,
)


class DisputesQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    after: Annotated[str, Meta(max_length=200)] | None = None
    limit: Annotated[int, Meta(ge=1, le=100)] = 20


@route(api, "POST", "/disputes", scope="user", body=DisputeBody, answer=DisputeView, status=201, group="disputes")
async def open_dispute(who: Principal, body: DisputeBody) -> DisputeView:
    """Dispute an attempt at a job: posts the bond, and holds the payment up while it is not settled"""
    return await disputes.open_dispute(here().desk, who, body)


@route(api, "GET", "/jobs/<uuid:job_id>/disputes", scope="user", answer=JobDisputesView, group="disputes")
async def list_job_disputes(who: Principal, job_id: UUID) -> JobDisputesView:
    """What of a job you can dispute now, what that stakes, and the disputes that there are about it"""
    return await terms.of_job(here().desk, who, str(job_id))


@route(api, "GET", "/disputes", scope="user", query=DisputesQuery, answer=DisputesView, group="disputes")
async def list_disputes(who: Principal, query: DisputesQuery) -> DisputesView:
    """Those you are a side of, newest first"""
    return await disputes.list_disputes(here().desk, who, after=query.after, limit=query.limit)


@route(api, "GET", "/disputes/<uuid:dispute_id>", scope="user", answer=DisputeView, group="disputes")
async def get_dispute(who: Principal, dispute_id: UUID) -> DisputeView:
    """One dispute with its timeline and evidence; both sides see the same"""
    return await disputes.get(here().desk, who, dispute_id)


@route(
    api,
    "POST",
    "/disputes/<uuid:dispute_id>/answer",
    scope="user",
    body=AnswerBody,
    answer=DisputeView,
    group="disputes",
)
async def answer_dispute(who: Principal, dispute_id: UUID, body: AnswerBody) -> DisputeView:
    """The other side's word: concede, or say why not"""
    return await disputes.answer(here().desk, who, dispute_id, body)


@route(
    api,
    "POST",
    "/disputes/<uuid:dispute_id>/evidence",
    scope="user",
    body=EvidenceBody,
    answer=DisputeView,
    group="disputes",
)
async def add_evidence(who: Principal, dispute_id: UUID, body: EvidenceBody) -> DisputeView:
    """A statement, with digests of what proves it"""
    return await disputes.evidence(here().desk, who, dispute_id, body)


@route(api, "POST", "/disputes/<uuid:dispute_id>/withdraw", scope="user", answer=DisputeView, group="disputes")
async def withdraw_dispute(who: Principal, dispute_id: UUID) -> DisputeView:
    """Take it back; while nothing was spent or found the bond comes back, too"""
    return await disputes.withdraw(here().desk, who, dispute_id)


@route(api, "GET", "/arbiter/disputes", scope="arbiter", query=DisputesQuery, answer=DisputesView, group="disputes")
async def list_all_disputes(who: Principal, query: DisputesQuery) -> DisputesView:
    """All disputes, newest first (arbiters)"""
    return await disputes.list_disputes(here().desk, who, everybodys=True, after=query.after, limit=query.limit)


@route(api, "GET", "/arbiter/disputes/<uuid:dispute_id>", scope="arbiter", answer=DisputeView, group="disputes")
async def get_any_dispute(who: Principal, dispute_id: UUID) -> DisputeView:
    """One dispute as its sides see it (arbiters)"""
    return await disputes.get(here().desk, who, dispute_id)


@route(
    api,
    "POST",
    "/arbiter/disputes/<uuid:dispute_id>/decide",
    scope="arbiter",
    body=DecisionBody,
    answer=DisputeView,
    group="disputes",
)
async def decide_dispute(who: Principal, dispute_id: UUID, body: DecisionBody) -> DisputeView:
    """What of the stake goes to who opened it; about much it takes two arbiters who say the same"""
    return await disputes.decide(here().desk, who, dispute_id, body)
