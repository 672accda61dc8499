# SPDX-License-Identifier: Apache-2.0
"""What became of one job of the demonstration. Pure."""

from collections.abc import Sequence

import msgspec

from qubix.cli import shown
from qubix.errors import NotGenuine
from qubix.job import VerifiedReceipt
from qubix_protocol.api import JobView


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """`seconds` is from submission to the settled result. Money in QU, times in ms."""

    kernel: str
    job_id: str
    provider: str
    model: str
    seconds: float
    run_ms: int
    check_ms: int
    verdict: str
    held_qu: int
    settled_qu: int
    fee_qu: int
    returned_qu: int
    attempts: int
    settlements: tuple[str, ...]
    """The attempts that were paid, as the coordinator's signed settlements name them."""
    receipts_verified: int
    signed_by_both: int
    found: dict[str, float]

    @property
    def check_share_pct(self) -> float:
        """What the check took, beside the run it checked."""
        return 100.0 * self.check_ms / max(self.run_ms, 1)


def outcome_of(view: JobView, receipts: Sequence[VerifiedReceipt], found: dict[str, float], seconds: float) -> Outcome:
    """Raises `NotGenuine` when money or receipts do not add up."""
    _check_money(view, receipts)
    last = view.attempts[-1]
    return Outcome(
        kernel=view.kernel,
        job_id=view.job_id,
        provider=last.provider,
        model=shown.ran_on(last.model, last.backend),
        seconds=seconds,
        run_ms=sum(one.run_ms for one in view.attempts),
        check_ms=sum(one.check_ms for one in view.attempts),
        verdict=last.verdict,
        held_qu=view.cap_qu,
        settled_qu=view.paid_qu,
        fee_qu=view.fee_qu,
        returned_qu=view.returned_qu,
        attempts=len(view.attempts),
        settlements=tuple(one.settlement.attempt_id for one in receipts),
        receipts_verified=len(receipts),
        signed_by_both=sum(one.report is not None for one in receipts),
        found=found,
    )


def _check_money(view: JobView, receipts: Sequence[VerifiedReceipt]) -> None:
    if view.held_qu or view.paid_qu + view.fee_qu + view.returned_qu != view.cap_qu:
        raise NotGenuine(f"the money of job {view.job_id} does not add up to its hold of {view.cap_qu:,} QU")
    paid = sum(one.settlement.paid_qu for one in receipts)
    fees = sum(one.settlement.fee_qu for one in receipts)
    if (paid, fees) != (view.paid_qu, view.fee_qu) or not paid:
        raise NotGenuine(f"the receipts of job {view.job_id} prove {paid:,} + {fees:,} QU, paid were {view.paid_qu:,}")
