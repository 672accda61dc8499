# SPDX-License-Identifier: Apache-2.0
"""The disputes' front door: what the HTTP API calls. Bodies are checked there; who may do what, and when, here."""

import unicodedata
import uuid
from uuid import UUID

from tortoise.expressions import Q

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts.rules import Principal, Scope
from qubix_coordinator.db.database import Tx, execute, one, rows, value
from qubix_coordinator.disputes import flow, look, money, rules, terms, views
from qubix_coordinator.disputes.engine import settle_due
from qubix_coordinator.disputes.rules import Event, Verb
from qubix_coordinator.disputes.tables import Dispute
from qubix_coordinator.errors import Conflict, Forbidden, InvalidInput, LimitExceeded
from qubix_coordinator.jobs import flow as jobs_flow
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.read import position
from qubix_coordinator.jobs.rules import JobEvent
from qubix_coordinator.jobs.tables import Attempt, Job
from qubix_protocol.disputes import (
    AnswerBody,
    DecisionBody,
    DisputeBody,
    DisputeState,
    DisputesView,
    DisputeView,
    EvidenceBody,
    Outcome,
    Side,
)

__all__ = ["answer", "decide", "evidence", "get", "list_disputes", "open_dispute", "settle_due", "withdraw"]
STATEMENTS_MAX = 20
"""Of one side in one dispute."""
PAGE_MAX = 100


async def open_dispute(desk: Desk, principal: Principal, body: DisputeBody) -> DisputeView:
    """Posts the bond and, in a job's acceptance window, holds its payment up. The same attempt again is a conflict.

    Raises NotFound, InvalidInput (which attempt), Conflict (nothing to dispute, too late, already), NotEnoughBalance.
    """

    _check_words("statement", body.statement)

    async def step(tx: Tx) -> DisputeView:
        job = await jobs_flow.lock_job(tx, await terms.key_of_party(tx, principal, body.job_id))
        attempt, side = await terms.disputed(tx, principal, job, body.attempt)
        provider = await accounts.account_of_node(tx, attempt.peer_id)
        if provider == job.account_id:
            raise Conflict("both sides are you", field="job_id", remedy="Settle it with yourself")
        found = await terms.of_attempt(desk, tx, job, attempt, side)
        terms.check_time(desk, job, in_window=found.in_window)
        dispute = await _new(desk, tx, job, attempt, side, provider, found)
        if await Dispute.filter(attempt_id=attempt.id, opened_by=side.value).using_db(tx).exists():
            raise Conflict(
                f"attempt {attempt.fence} was disputed already", field="attempt", remedy="List your disputes"
            )
        if await Dispute.filter(attempt_id=attempt.id, resolved_ms__isnull=True).using_db(tx).exists():
            raise Conflict(
                f"attempt {attempt.fence} is being disputed by the other side",
                field="attempt",
                remedy="Answer that dispute",
            )
        await dispute.save(using_db=tx, force_create=True)
        await money.stake_bond(tx, dispute.id, principal.account_id, dispute.bond_qu)
        if dispute.in_window:
            await jobs_flow.step_job(desk, tx, job, JobEvent.DISPUTE)
        await flow.note(desk, tx, dispute.id, side.value, "opened", body.statement, body.digests)
        await flow.save(desk, tx, dispute)
        return await views.view(desk, tx, dispute, side.value)

    return await desk.db.run(step)


async def _new(
    desk: Desk, tx: Tx, job: Job, attempt: Attempt, side: Side, provider: UUID, found: terms.Terms
) -> Dispute:
    now_ms = desk.now_ms()
    return Dispute(
        id=uuid.uuid4(),
        no=await value(tx, "SELECT nextval('dispute_no')"),
        job_id=job.id,
        attempt_id=attempt.id,
        fence=attempt.fence,
        peer_id=attempt.peer_id,
        opened_by=side.value,
        consumer_id=job.account_id,
        provider_id=provider,
        state=DisputeState.OPENED.value,
        checked=job.has_verifier or side is Side.PROVIDER,
        in_window=found.in_window,
        ranges=[[one.start, one.stop] for one in found.ranges],
        stake_qu=found.stake_qu,
        bond_qu=found.bond_qu,
        opened_ms=now_ms,
        due_ms=now_ms + flow.wait_ms(desk, DisputeState.OPENED),
    )


async def answer(desk: Desk, principal: Principal, dispute_id: UUID, body: AnswerBody) -> DisputeView:
    """The other side's word: it concedes, or says why not and may stake as much as the opener.

    Raises NotFound, Forbidden (the opener), InvalidInput (who concedes stakes nothing), Conflict (not now),
    NotEnoughBalance.
    """
    _check_words("statement", body.statement)
    if body.concede and body.bond:
        raise InvalidInput("bond", "who concedes stakes nothing", "Either concede, or answer with a bond")

    async def step(tx: Tx) -> DisputeView:
        job, dispute, side = await _locked(tx, principal, dispute_id)
        if side.value == dispute.opened_by:
            raise Forbidden("this is the other side's to answer", field="dispute_id", remedy="Wait for its answer")
        # First what was said, then what the market makes of it; a refusal takes both back.
        what = "conceded" if body.concede else "answered"
        await flow.note(desk, tx, dispute.id, side.value, what, body.statement, body.digests)
        if body.concede:
            decision = await flow.step(desk, tx, job, dispute, Event.CONCEDE)
            if decision.verb is Verb.REFUSE:
                raise (
                    flow.too_late(dispute, "conceding comes too late")
                    if dispute.state == DisputeState.RESOLVED.value
                    else Conflict(
                        "the market's own check is disputed, which nobody but evidence can overrule",
                        field="concede",
                        remedy="Say what you know as a statement",
                    )
                )
        else:
            if dispute.state != DisputeState.OPENED.value:
                raise flow.too_late(dispute, "an answer comes too late")
            if body.bond:
                await money.stake_bond(tx, dispute.id, principal.account_id, dispute.bond_qu)
                dispute.answer_bond_qu = dispute.bond_qu
            await flow.step(desk, tx, job, dispute, Event.ANSWER)
        return await views.view(desk, tx, dispute, side.value)

    return await desk.db.run(step)


async def evidence(desk: Desk, principal: Principal, dispute_id: UUID, body: EvidenceBody) -> DisputeView:
    """A statement of either side, at any time before it is resolved. Raises NotFound, Conflict, LimitExceeded."""

    _check_words("statement", body.statement)

    async def step(tx: Tx) -> DisputeView:
        _, dispute, side = await _locked(tx, principal, dispute_id)
        if dispute.state == DisputeState.RESOLVED.value:
            raise flow.too_late(dispute, "a statement comes too late")
        said = await value(
            tx, "SELECT count(*) FROM dispute_step WHERE dispute_id = $1 AND by = $2", dispute.id, side.value
        )
        if said >= STATEMENTS_MAX:
            raise LimitExceeded(f"you have made {said} statements", field="statement", remedy="Let the arbiter judge")
        await flow.note(desk, tx, dispute.id, side.value, "statement", body.statement, body.digests)
        await flow.save(desk, tx, dispute)
        return await views.view(desk, tx, dispute, side.value)

    return await desk.db.run(step)


async def withdraw(desk: Desk, principal: Principal, dispute_id: UUID) -> DisputeView:
    """By who opened it: nothing is awarded. Before it was answered the bond comes back. Twice is once.

    Raises NotFound, Forbidden, Conflict (resolved otherwise).
    """

    async def step(tx: Tx) -> DisputeView:
        job, dispute, side = await _locked(tx, principal, dispute_id)
        if side.value != dispute.opened_by:
            raise Forbidden("only who opened it can withdraw it", field="dispute_id", remedy="Answer it")
        decision = await flow.step(desk, tx, job, dispute, Event.WITHDRAW)
        if decision.verb is Verb.REFUSE and dispute.outcome != Outcome.WITHDRAWN.value:
            raise flow.too_late(dispute, "withdrawing comes too late")
        return await views.view(desk, tx, dispute, side.value)

    return await desk.db.run(step)


async def decide(desk: Desk, principal: Principal, dispute_id: UUID, body: DecisionBody) -> DisputeView:
    """An arbiter's word. About much it takes two who say the same; until then, one may change theirs. The same word
    again is no second one, even after it has decided.

    Raises NotFound, Forbidden (a party), InvalidInput (more than is at stake), Conflict (not now).
    """
    _check_words("reason", body.reason)

    async def step(tx: Tx) -> DisputeView:
        job, dispute = await flow.lock(tx, dispute_id)
        await _check_no_party(tx, principal, dispute)
        if body.award_qu > dispute.stake_qu:
            raise InvalidInput("award_qu", f"only {dispute.stake_qu} QU are at stake", f"Award 0 to {dispute.stake_qu}")
        mine = await one(
            tx,
            "SELECT award_qu, reason FROM dispute_vote WHERE dispute_id = $1 AND arbiter_id = $2",
            dispute.id,
            principal.account_id,
        )
        if mine is not None and (mine["award_qu"], mine["reason"]) == (body.award_qu, body.reason):
            return await views.view(desk, tx, dispute, "arbiter")
        if dispute.state != DisputeState.JUDGING.value:
            raise flow.too_late(dispute, "it cannot be decided now")
        await execute(
            tx,
            "INSERT INTO dispute_vote (dispute_id, arbiter_id, award_qu, reason, at_ms) VALUES ($1, $2, $3, $4, $5)"
            " ON CONFLICT (dispute_id, arbiter_id) DO UPDATE SET award_qu = $3, reason = $4, at_ms = $5",
            dispute.id,
            principal.account_id,
            body.award_qu,
            body.reason,
            desk.now_ms(),
        )
        words = f"{body.award_qu} QU of {dispute.stake_qu}: {body.reason}"[:4000]
        await flow.note(desk, tx, dispute.id, "arbiter", "vote", words)
        votes = await rows(tx, "SELECT arbiter_id, award_qu FROM dispute_vote WHERE dispute_id = $1", dispute.id)
        needed = rules.arbiters_needed(dispute.stake_qu, desk.settings.dispute_two_above_qu)
        agreed = rules.agreed_qu({row["arbiter_id"]: row["award_qu"] for row in votes}, needed)
        if agreed is None:
            await flow.save(desk, tx, dispute)
        else:
            await flow.step(desk, tx, job, dispute, Event.DECIDE, award_qu=agreed)
        return await views.view(desk, tx, dispute, "arbiter")

    return await desk.db.run(step)


def _check_words(field: str, text: str) -> None:
    """Of one side, for the other's terminal and the database: neither empty nor with control characters."""
    if not text.strip():
        raise InvalidInput(field, "it says nothing", "Say in words what is to be known")
    wrong = next((char for char in text if unicodedata.category(char) == "Cc" and char not in "\n\r\t"), None)
    if wrong is not None:
        raise InvalidInput(field, f"it has the control character {wrong!r}", "Send plain text")


async def _check_no_party(tx: Tx, principal: Principal, dispute: Dispute) -> None:
    """Neither by account nor by wallet (trust.md M7)."""
    parties = {dispute.consumer_id, dispute.provider_id}
    wallets = await look.wallets_of(tx, {*parties, principal.account_id})
    mine = wallets.pop(principal.account_id, frozenset())
    if principal.account_id in parties or any(mine & theirs for theirs in wallets.values()):
        raise Forbidden(
            "a party of a dispute cannot judge it", field="dispute_id", remedy="Leave it to another arbiter"
        )


async def _locked(tx: Tx, principal: Principal, dispute_id: UUID) -> tuple[Job, Dispute, Side]:
    job, dispute = await flow.lock(tx, dispute_id)
    if principal.account_id == dispute.consumer_id:
        return job, dispute, Side.CONSUMER
    if principal.account_id == dispute.provider_id:
        return job, dispute, Side.PROVIDER
    raise flow.unknown()


async def get(desk: Desk, principal: Principal, dispute_id: UUID) -> DisputeView:
    async def step(tx: Tx) -> DisputeView:
        dispute = await Dispute.filter(id=dispute_id).using_db(tx).first()
        you = "" if dispute is None else _you(principal, dispute)
        if dispute is None or not you:
            raise flow.unknown()
        return await views.view(desk, tx, dispute, you)

    return await desk.db.run(step)


def _you(principal: Principal, dispute: Dispute) -> str:
    if principal.account_id == dispute.consumer_id:
        return Side.CONSUMER.value
    if principal.account_id == dispute.provider_id:
        return Side.PROVIDER.value
    return "arbiter" if principal.may(Scope.ARBITER) else ""


async def list_disputes(
    desk: Desk, principal: Principal, *, everybodys: bool = False, after: str | None = None, limit: int = 20
) -> DisputesView:
    """Newest first: those that the account is a side of, or everybody's, which are for arbiters alone."""
    before = position(after)
    count = max(1, min(limit, PAGE_MAX))

    async def step(tx: Tx) -> DisputesView:
        found = Dispute.filter(no__lt=before).using_db(tx)
        if not (everybodys and principal.may(Scope.ARBITER)):
            found = found.filter(Q(consumer_id=principal.account_id) | Q(provider_id=principal.account_id))
        disputes = await found.order_by("-no").limit(count + 1)
        shown = disputes[:count]
        return DisputesView(
            disputes=tuple([await views.view(desk, tx, one, _you(principal, one)) for one in shown]),
            next=str(shown[-1].no) if len(disputes) > count else None,
        )

    return await desk.db.run(step)
