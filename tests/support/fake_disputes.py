# SPDX-License-Identifier: Apache-2.0
"""The fake coordinator of the SDK's tests with disputes, acceptance and settling."""

import uuid
from typing import Any

import msgspec

from qubix_protocol.api import SettleView
from qubix_protocol.disputes import (
    OUTCOME_TEXT,
    AnswerBody,
    DecisionBody,
    DisputeBody,
    DisputeState,
    DisputeStepView,
    DisputesView,
    DisputeView,
    EvidenceBody,
    EvidenceView,
    Finding,
    LinkView,
    Outcome,
    Side,
)
from qubix_protocol.states import JobState, Reason
from tests.support.fake_api import FakeApi, Refusal, Seen, now_ms

STAKE_QU = 10_000
BOND_QU = 25_000
DIGEST = "ab" * 32


class FakeDisputes(FakeApi):
    def __init__(self) -> None:
        super().__init__()
        self.disputes: dict[str, DisputeView] = {}

    def _post_jobs(self, seen: Seen, *rest: str) -> tuple[int, Any]:
        if rest[1:] == ("accept",):
            view = self.jobs.get(rest[0])
            if view is None:
                raise Refusal(404, "not_found", "there is no such job of yours", remedy="GET /jobs", field="job_id")
            if view.state not in (JobState.DELIVERED, JobState.SETTLED):
                raise Refusal(
                    409,
                    "conflict",
                    f"the job is {view.state}: there is nothing to accept",
                    remedy="Wait until the result is delivered",
                    field="job_id",
                )
            return 200, self.change(rest[0], state=JobState.SETTLED, reason=Reason.ACCEPTED_BY_CONSUMER)
        if rest[1:] == ("settle",):
            said = "the next thing is due in 60 s"
            return 200, SettleView(job_id=rest[0], state=self.jobs[rest[0]].state, due_ms=now_ms() + 60_000, said=said)
        return super()._post_jobs(seen, *rest)

    def _post_disputes(self, seen: Seen, dispute_id: str = "", action: str = "") -> tuple[int, Any]:
        if not dispute_id:
            body = msgspec.json.decode(seen.body, type=DisputeBody)
            if any(one.job_id == body.job_id for one in self.disputes.values()):
                raise Refusal(
                    409, "conflict", "attempt 1 was disputed already", remedy="List your disputes", field="attempt"
                )
            return 201, self.add_dispute(body.job_id, body.statement, body.digests)
        self._known(dispute_id)
        if action == "withdraw":
            if self.disputes[dispute_id].you != "consumer":
                raise Refusal(
                    403, "forbidden", "only who opened it can withdraw it", remedy="Answer it", field="dispute_id"
                )
            return 200, self._resolved(dispute_id, Outcome.WITHDRAWN)
        if action == "evidence":
            said = msgspec.json.decode(seen.body, type=EvidenceBody)
            return 200, self._step(dispute_id, "consumer", "statement", said.statement)
        answer = msgspec.json.decode(seen.body, type=AnswerBody)
        self._step(dispute_id, "provider", "answered", answer.statement)
        if answer.concede:
            return 200, self._resolved(dispute_id, Outcome.CONCEDED, STAKE_QU)
        bond_qu = BOND_QU if answer.bond else 0
        return 200, self.change_dispute(dispute_id, state=DisputeState.RERUNNING, answer_bond_qu=bond_qu)

    def _get_disputes(self, seen: Seen, dispute_id: str = "") -> tuple[int, Any]:
        if dispute_id:
            return 200, self._known(dispute_id)
        found, limit = list(reversed(self.disputes.values())), int(seen.query["limit"][0])
        first = int(seen.query.get("after", ["0"])[0])
        more = str(first + limit) if first + limit < len(found) else None
        return 200, DisputesView(disputes=tuple(found[first : first + limit]), next=more)

    def _get_arbiter(self, seen: Seen, disputes: str, dispute_id: str = "") -> tuple[int, Any]:
        assert disputes == "disputes"
        return self._get_disputes(seen, dispute_id)

    def _post_arbiter(self, seen: Seen, disputes: str, dispute_id: str, action: str) -> tuple[int, Any]:
        assert (disputes, action) == ("disputes", "decide")
        self._known(dispute_id)
        body = msgspec.json.decode(seen.body, type=DecisionBody)
        if body.award_qu > STAKE_QU:
            remedy = f"Award 0 to {STAKE_QU}"
            raise Refusal(422, "invalid_input", f"only {STAKE_QU} QU are at stake", remedy=remedy, field="award_qu")
        self._step(dispute_id, "arbiter", "vote", body.reason)
        return 200, self._resolved(dispute_id, Outcome.DECIDED, body.award_qu)

    def _known(self, dispute_id: str) -> DisputeView:
        if dispute_id not in self.disputes:
            remedy = "List your disputes with GET /disputes"
            raise Refusal(404, "not_found", "there is no such dispute of yours", remedy=remedy, field="dispute_id")
        return self.disputes[dispute_id]

    def _resolved(self, dispute_id: str, outcome: Outcome, award_qu: int = 0) -> DisputeView:
        return self.change_dispute(
            dispute_id,
            state=DisputeState.RESOLVED,
            outcome=outcome,
            outcome_text=OUTCOME_TEXT[outcome],
            award_qu=award_qu,
            awarded_from={"hold": award_qu} if award_qu else {},
            due_ms=None,
            resolved_ms=now_ms(),
        )

    def _step(self, dispute_id: str, by: str, what: str, text: str) -> DisputeView:
        step = DisputeStepView(at_ms=now_ms(), by=by, what=what, text=text)
        return self.change_dispute(dispute_id, steps=(*self.disputes[dispute_id].steps, step))

    def change_dispute(self, dispute_id: str, **changes: Any) -> DisputeView:
        view = self.disputes[dispute_id]
        self.disputes[dispute_id] = msgspec.structs.replace(view, revision=view.revision + 1, **changes)
        return self.disputes[dispute_id]

    def add_dispute(self, job_id: str, statement: str = "wrong", digests: tuple[str, ...] = ()) -> DisputeView:
        link = LinkView(start=0, stop=4, output=DIGEST, chain=DIGEST, heard_ms=now_ms(), good=None)
        view = DisputeView(
            dispute_id=str(uuid.uuid4()),
            job_id=job_id,
            attempt_id=str(uuid.uuid4()),
            attempt=1,
            provider=self.provider.peer_id,
            state=DisputeState.OPENED,
            opened_by=Side.CONSUMER,
            you="consumer",
            stake_qu=STAKE_QU,
            bond_qu=BOND_QU,
            answer_bond_qu=0,
            rerun_cost_qu=0,
            finding=Finding.NONE,
            outcome=None,
            outcome_text="",
            award_qu=0,
            awarded_from={},
            arbiters_needed=1,
            opened_ms=now_ms(),
            due_ms=now_ms() + 60_000,
            resolved_ms=None,
            steps=(DisputeStepView(at_ms=now_ms(), by="consumer", what="opened", text=statement, digests=digests),),
            evidence=EvidenceView(
                kernel="orbit",
                params_digest=DIGEST,
                inputs_digest=DIGEST,
                order="",
                report="",
                settlement="",
                links=(link,),
                verdict="",
                verdict_reason="",
                verdict_detail="",
                claimed_ms=9_000,
                observed_ms=10_000,
                billed_ms=9_000,
                forecast_ms=10_000,
                late=0,
                ended="completed",
            ),
            revision=1,
        )
        self.disputes[view.dispute_id] = view
        return view
