# SPDX-License-Identifier: Apache-2.0
"""From a request to a stored job: everything is checked, the price frozen and the hold posted in one transaction."""

import dataclasses
import hashlib
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from uuid import UUID

import msgspec

from qubix_coordinator.accounts.rules import Principal
from qubix_coordinator.artifacts import service as artifacts
from qubix_coordinator.artifacts.service import Artifact
from qubix_coordinator.db.database import Tx, execute, value
from qubix_coordinator.errors import CauseReused, InvalidInput
from qubix_coordinator.jobs import flow, money, needs, orders, receipt, shares, views
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.tables import Job, JobInput
from qubix_coordinator.market import rules as market_rules
from qubix_coordinator.market import wanted
from qubix_protocol import digests
from qubix_protocol.api import InputBody, JobBody, JobView
from qubix_protocol.messages import InputRef, Order
from qubix_protocol.states import JobState, Reason

log = logging.getLogger(__name__)
KEY_MAX = 200


@dataclass(frozen=True, slots=True)
class Berth:
    """The rented device that a job is to run on."""

    rental_id: UUID
    device: market_rules.Candidate


FindBerth = Callable[[Tx], Awaitable[Berth]]
"""Locks the rental that the body names, and says which device it has. Raises what is wrong with it."""


async def submit(
    desk: Desk, principal: Principal, body: JobBody, idempotency_key: str, find_berth: FindBerth | None = None
) -> JobView:
    """The same key with the same body is the same job; with another body it is a conflict.

    Raises InvalidInput (with the field), CauseReused, NotEnoughBalance, Forbidden (order).
    """
    if not 1 <= len(idempotency_key) <= KEY_MAX:
        raise InvalidInput("Idempotency-Key", "it is missing or too long", f"Send one of 1 to {KEY_MAX} characters")
    plan = needs.plan_of(body.kernel, body.params, {name: one.meta for name, one in body.inputs.items()})

    async def step(tx: Tx) -> JobView:
        await take_turns(tx, principal.account_id, idempotency_key)
        known = await Job.filter(account_id=principal.account_id, idempotency_key=idempotency_key).using_db(tx).first()
        if known is None:
            berth = await find_berth(tx) if find_berth is not None else None
            _check_terms(body, plan, berth)
            known = await _store(desk, tx, principal.account_id, body, idempotency_key, plan, berth)
        elif bytes(known.body_digest) != body_digest(body):
            raise CauseReused(
                "this Idempotency-Key was used for another job",
                field="Idempotency-Key",
                remedy="Repeat the first request exactly, or use a new key",
            )
        return await views.of_job(tx, known, desk.now_ms())

    view = await desk.db.run(step)
    desk.wake.set()
    return view


async def take_turns(tx: Tx, account_id: UUID, key: str) -> None:
    """Two requests with the same key at once: the second waits and finds the first one's job."""
    number = int.from_bytes(hashlib.sha256(account_id.bytes + key.encode()).digest()[:8], "big", signed=True)
    await execute(tx, "SELECT pg_advisory_xact_lock($1)", number)


def body_digest(body: JobBody) -> bytes:
    """Without the order's envelope: a retry may sign the same order anew. A wish that is not made has no part in it:
    the digest is what it was before there was such a wish."""
    plain = msgspec.to_builtins(msgspec.structs.replace(body, order=""))
    for wish in ("spread", "rental", "region", "where"):
        if plain[wish] is None:
            del plain[wish]
    return digests.of_bytes(msgspec.json.encode(plain, order="deterministic"))


def _check_terms(body: JobBody, plan: needs.Plan, berth: Berth | None) -> None:
    if berth is None:
        if body.rental is not None:
            raise InvalidInput("rental", "jobs on a rental are not taken here", "Submit it by POST /jobs")
        if body.cap_qu < 1:
            raise InvalidInput("cap_qu", "the cap is 0 QU", "Give the most that the job may cost, 1 QU or more")
        wanted.query_of(body.where or "")
        return
    for field in ("cap_qu", "rate_qu_per_h_max", "provider", "spread", "where"):
        if getattr(body, field) not in (0, None):
            raise InvalidInput(
                field,
                "a job on a rental costs nothing further and runs on its device",
                f"Leave {field} out (cap_qu: 0)",
            )
    need = dataclasses.replace(plan.need(), time_left_ms=body.deadline_s * 1000)
    found = market_rules.misfit(berth.device, need, market_rules.best_backend(berth.device, need))
    if found is not None:
        raise InvalidInput(
            "rental", f"the rented device {found.value}", "Submit it to the market, or rent another device"
        )


async def _store(
    desk: Desk,
    tx: Tx,
    account_id: UUID,
    body: JobBody,
    idempotency_key: str,
    plan: needs.Plan,
    berth: Berth | None,
) -> Job:
    refs = input_refs(body.inputs)
    await _check_artifacts(tx, account_id, body.inputs)
    inputs_digest, params_digest = digests.of_inputs(refs), digests.of_params(plan.params)
    order_raw = await _ordered(desk, tx, account_id, body, idempotency_key, params_digest, inputs_digest)
    now_ms = desk.now_ms()
    job = Job(
        id=uuid.uuid4(),
        no=await value(tx, "SELECT nextval('job_no')"),
        account_id=account_id,
        idempotency_key=idempotency_key,
        body_digest=body_digest(body),
        state=JobState.QUEUED.value,
        reason=Reason.WAITING_FOR_PROVIDER.value,
        detail="",
        revision=0,
        kernel=body.kernel,
        kernel_version=plan.kernel.spec.version,
        params=plan.params,
        params_digest=params_digest,
        inputs_digest=inputs_digest,
        outputs=msgspec.to_builtins(plan.outputs),
        units=plan.units,
        has_verifier=plan.kernel.spec.verifier,
        units_waiting=plan.units,
        spread=body.spread,
        hands_max=shares.hands_max(body.spread, body.provider) if berth is None else 1,
        cap_qu=body.cap_qu,
        rate_max=body.rate_qu_per_h_max,
        provider=body.provider,
        region=body.region or "",
        wanted=body.where or "",
        rental_id=berth.rental_id if berth is not None else None,
        order_raw=order_raw,
        created_ms=now_ms,
        queued_ms=now_ms,
        match_ms=now_ms,
        deadline_ms=now_ms + body.deadline_s * 1000,
    )
    await job.save(using_db=tx, force_create=True)
    for ref in refs:
        await _store_input(tx, job.id, ref)
    if berth is None:
        await money.hold(tx, job)
    await receipt.opened(desk, tx, job, refs, plan.outputs)
    await flow.save_job(tx, job, now_ms)
    log.info("job.submitted", extra={"job": str(job.id), "kernel": job.kernel, "cap_qu": job.cap_qu})
    return job


async def _store_input(tx: Tx, job_id: UUID, ref: InputRef) -> None:
    row = JobInput(
        job_id=job_id,
        name=ref.name,
        digest=ref.digest,
        size_bytes=ref.size_bytes,
        meta=msgspec.to_builtins(ref.meta),
    )
    await row.save(using_db=tx, force_create=True)


def input_refs(inputs: Mapping[str, InputBody]) -> list[InputRef]:
    return [
        InputRef(name=name, digest=bytes.fromhex(one.digest), size_bytes=one.size_bytes, meta=one.meta)
        for name, one in sorted(inputs.items())
    ]


async def _check_artifacts(tx: Tx, account_id: UUID, inputs: Mapping[str, InputBody]) -> None:
    """Every input is here, is the account's own, and its header says what the request says."""
    wanted = [bytes.fromhex(one.digest) for one in inputs.values()]
    await artifacts.keep(tx, account_id, wanted)
    found = await artifacts.find_many(tx, account_id, wanted)
    for name, one in inputs.items():
        _check_artifact(name, one, found.get(bytes.fromhex(one.digest)))


def _check_artifact(name: str, wanted: InputBody, found: Artifact | None) -> None:
    if found is None or not found.usable:
        raise InvalidInput(
            f"inputs.{name}.digest", "no such artifact is stored for you", "Upload it first: POST /artifacts, then PUT"
        )
    if found.size_bytes != wanted.size_bytes:
        raise InvalidInput(
            f"inputs.{name}.size_bytes", f"the stored artifact has {found.size_bytes} bytes", "Send its real size"
        )
    if found.meta != wanted.meta:
        is_ = f"{found.meta.dtype}{list(found.meta.shape)}" if found.meta else "not a .npy file"
        raise InvalidInput(
            f"inputs.{name}.meta", f"the stored artifact is {is_}", "Send the dtype and shape that its header says"
        )


async def _ordered(
    desk: Desk,
    tx: Tx,
    account_id: UUID,
    body: JobBody,
    idempotency_key: str,
    params_digest: bytes,
    inputs_digest: bytes,
) -> bytes | None:
    wanted = Order(
        idempotency_key=idempotency_key,
        kernel=body.kernel,
        params_digest=params_digest,
        inputs_digest=inputs_digest,
        cap_qu=body.cap_qu,
        rate_qu_per_h_max=body.rate_qu_per_h_max,
        rental=body.rental,
    )
    return await orders.check(desk, tx, account_id, body.order, wanted)
