# SPDX-License-Identifier: Apache-2.0
"""Disputes as both sides and arbiters see them: the same timeline and the same evidence, which gathers itself."""

from collections.abc import Sequence
from typing import Final

from qubix_coordinator.db.database import Tx, rows, value
from qubix_coordinator.disputes import rules
from qubix_coordinator.disputes.tables import Dispute
from qubix_coordinator.jobs import again
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.tables import Attempt, ChainLink, Job, Verdict
from qubix_coordinator.telemetry import service as telemetry
from qubix_protocol.disputes import (
    OUTCOME_TEXT,
    DisputeState,
    DisputeStepView,
    DisputeView,
    EvidenceView,
    Finding,
    LinkView,
    Outcome,
    Side,
)

LINKS_SHOWN_MAX: Final = 256
STEPS_SHOWN_MAX: Final = 200


async def view(desk: Desk, tx: Tx, dispute: Dispute, you: str) -> DisputeView:
    outcome = Outcome(dispute.outcome) if dispute.outcome else None
    from_qu = {
        "hold": dispute.from_hold_qu,
        "provider": dispute.from_provider_qu,
        "fees": dispute.from_fees_qu,
        "fund": dispute.from_fund_qu,
    }
    from_qu["unpaid"] = dispute.award_qu - sum(from_qu.values())
    return DisputeView(
        dispute_id=str(dispute.id),
        job_id=str(dispute.job_id),
        attempt_id=str(dispute.attempt_id),
        attempt=dispute.fence,
        provider=dispute.peer_id,
        state=DisputeState(dispute.state),
        opened_by=Side(dispute.opened_by),
        you=you,
        stake_qu=dispute.stake_qu,
        bond_qu=dispute.bond_qu,
        answer_bond_qu=dispute.answer_bond_qu,
        rerun_cost_qu=dispute.rerun_cost_qu,
        finding=Finding(dispute.finding),
        outcome=outcome,
        outcome_text=OUTCOME_TEXT[outcome] if outcome else "",
        award_qu=dispute.award_qu,
        awarded_from={source: amount for source, amount in from_qu.items() if amount},
        arbiters_needed=rules.arbiters_needed(dispute.stake_qu, desk.settings.dispute_two_above_qu),
        opened_ms=dispute.opened_ms,
        due_ms=dispute.due_ms,
        resolved_ms=dispute.resolved_ms,
        steps=await _steps(tx, dispute),
        evidence=await _evidence(tx, dispute),
        revision=dispute.revision,
    )


async def _steps(tx: Tx, dispute: Dispute) -> tuple[DisputeStepView, ...]:
    found = await rows(
        tx,
        "SELECT at_ms, by, what, text, digests FROM dispute_step WHERE dispute_id = $1 ORDER BY id LIMIT $2",
        dispute.id,
        STEPS_SHOWN_MAX,
    )
    return tuple(
        DisputeStepView(
            at_ms=row["at_ms"],
            by=row["by"],
            what=row["what"],
            text=row["text"],
            digests=tuple(bytes(digest).hex() for digest in row["digests"]),
        )
        for row in found
    )


async def _evidence(tx: Tx, dispute: Dispute) -> EvidenceView:
    job = await Job.filter(id=dispute.job_id).using_db(tx).get()
    attempt = await Attempt.filter(id=dispute.attempt_id).using_db(tx).get()
    made = ChainLink.filter(attempt_id=attempt.id).using_db(tx).order_by("index")
    verdict = await Verdict.filter(attempt_id=attempt.id).using_db(tx).first()
    begun_ms = attempt.started_ms or attempt.created_ms
    ended_ms = attempt.ended_ms or attempt.created_ms
    use = await telemetry.use_between(tx, attempt.peer_id, attempt.device_id, begun_ms, ended_ms)
    look = await again.second_look(tx, dispute.id)
    return EvidenceView(
        kernel=job.kernel,
        params_digest=bytes(job.params_digest).hex(),
        inputs_digest=bytes(job.inputs_digest).hex(),
        order=bytes(job.order_raw or b"").hex(),
        report=bytes(attempt.report_raw or b"").hex(),
        settlement=bytes(attempt.settlement_raw or b"").hex(),
        links=_links(await made.limit(LINKS_SHOWN_MAX)),
        verdict=attempt.verdict,
        verdict_reason=verdict.reason if verdict else "",
        verdict_detail=verdict.detail if verdict else "",
        claimed_ms=attempt.claimed_ms,
        observed_ms=attempt.observed_ms,
        billed_ms=attempt.billed_ms,
        forecast_ms=attempt.forecast_ms,
        late=int(await value(tx, "SELECT count(*) FROM evidence WHERE attempt_id = $1", attempt.id)),
        ended=attempt.reason,
        readings=use.readings,
        utilisation_mean=use.mean_pct,
        second_look=_words(look),
        rerun_by=dispute.rerun_peer_id,
    )


def _links(found: Sequence[ChainLink]) -> tuple[LinkView, ...]:
    return tuple(
        LinkView(
            start=link.start,
            stop=link.stop,
            output=bytes(link.output_digest).hex(),
            chain=bytes(link.chain_digest).hex(),
            heard_ms=link.heard_ms,
            good=link.verdict,
        )
        for link in found
    )


def _words(look: again.SecondLook | None) -> str:
    if look is None:
        return ""
    if look.carried_out is None:
        return "waits for a verifier"
    return f"{look.reason}: {look.detail}" if look.detail else look.reason
