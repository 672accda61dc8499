# SPDX-License-Identifier: Apache-2.0
"""A submitted job in the hands of the one who submitted it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from qubix import results
from qubix.errors import NotGenuine
from qubix.follow import Deadline, Follower
from qubix.receipts import JobReceipt, verify
from qubix.session import Session
from qubix_protocol import receipts
from qubix_protocol.api import JobView, ReceiptsView, ReceiptView, SettleView
from qubix_protocol.arrays import Array
from qubix_protocol.errors import ProtocolError
from qubix_protocol.messages import Report, Settlement
from qubix_protocol.receipts import JobReceiptView
from qubix_protocol.states import DONE_JOB_STATES, FINAL_JOB_STATES, JobState, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """`fraction` is of the whole job, 0 to 1, and never falls; `eta_s` is None while nobody can say."""

    state: JobState
    reason: Reason
    reason_text: str
    fraction: float
    eta_s: float | None
    view: JobView

    @property
    def final(self) -> bool:
        return self.state in FINAL_JOB_STATES

    @property
    def done(self) -> bool:
        """Nobody works on it any more: it is final, or delivered and to be accepted."""
        return self.state in DONE_JOB_STATES


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedReceipt:
    """One attempt's receipt, both signatures checked on this machine. `report` is None when the provider vanished."""

    settlement: Settlement
    report: Report | None
    raw: ReceiptView


class AsyncJob:
    """Made by `AsyncClient.submit` and `AsyncClient.job`. `view` is what was heard last."""

    def __init__(self, session: Session, view: JobView) -> None:
        self._session: Final = session
        self.view = view

    @property
    def id(self) -> str:
        return self.view.job_id

    async def refresh(self) -> JobView:
        """Asks anew."""
        self.view = await self._session.get(f"/jobs/{self.id}", JobView)
        return self.view

    async def follow(self, timeout_s: float | None = None) -> AsyncGenerator[Update, None]:
        """Updates until nobody works on it any more, the first one at once. A lost connection is taken up where it
        broke.

        Raises `NotFinished` after `timeout_s`, `CannotReach` when the coordinator stays away for a minute.
        """
        deadline, follower = Deadline(timeout_s, f"job {self.id}"), self._follower()
        update = self._update(self.view, 0.0)
        try:
            yield update
            while not update.done:
                view = await follower.look(deadline.left_s())
                if view is not None:
                    update = self._update(view, update.fraction)
                    yield update
        finally:
            await follower.close()

    def _follower(self) -> Follower[JobView]:
        return Follower(self._session, f"job:{self.id}", f"/jobs/{self.id}", JobView)

    async def wait(self, timeout_s: float | None = None) -> JobView:
        """Until the job is over, however it ends, or delivered and to be accepted. Raises `NotFinished`."""
        async with aclosing(self.follow(timeout_s)) as updates:
            async for _ in updates:
                pass
        return self.view

    async def result(self, timeout_s: float | None = None) -> dict[str, Array]:
        """The outputs by name, each part checked against its digest.

        Waits for the job; raises `JobFailed` or `JobCancelled` when it ends without a result, `NotFinished` after
        `timeout_s`.
        """
        view = await self.wait(timeout_s)
        error = results.error_of(view)
        if error is not None:
            raise error
        return await results.fetch(self._session, view)

    async def receipts(self) -> list[VerifiedReceipt]:
        """A receipt for each attempt that was decided, checked offline against the coordinator's pinned key.

        Raises `NotGenuine` when one does not prove what it says.
        """
        network = await self._session.network()
        found = await self._session.get(f"/jobs/{self.id}/receipts", ReceiptsView)
        key = bytes.fromhex(network.coordinator_key)
        return [verify_receipt(raw, coordinator_key=key, job_id=self.id) for raw in found.receipts]

    async def receipt(self) -> JobReceipt:
        """The whole job's receipt, checked here against the coordinator's pinned key; `receipt.raw` is a file to keep.

        Raises `NotGenuine` when it does not hold, `Conflict` for a job from before there were such receipts.
        """
        network = await self._session.network()
        found = await self._session.get(f"/jobs/{self.id}/receipt", JobReceiptView)
        checked = verify(found.receipt.encode(), network.coordinator_key)
        if checked.proof.job_id != self.id:
            raise NotGenuine(f"a receipt of job {checked.proof.job_id} came for job {self.id}")
        return checked

    async def cancel(self) -> JobView:
        """Stops it: what was checked is paid, the rest of the hold returns. Asking twice is asking once."""
        self.view = await self._session.post(f"/jobs/{self.id}/cancel", None, JobView)
        return self.view

    async def accept(self) -> JobView:
        """Your word that what was delivered is right: it is paid at once, and the rest returns. For kernels without a
        verifier; asking twice is asking once."""
        self.view = await self._session.post(f"/jobs/{self.id}/accept", None, JobView)
        return self.view

    async def settle(self) -> SettleView:
        """Has done what is due by now, such as paying when the acceptance window has ended; says when more is due."""
        return await self._session.post(f"/jobs/{self.id}/settle", None, SettleView)

    def _update(self, view: JobView, fraction: float) -> Update:
        self.view = view
        finish_ms = None if view.state in DONE_JOB_STATES else view.expected_finish_ms
        eta_s = None if finish_ms is None else max(0.0, (finish_ms - self._session.clock_ms()) / 1000)
        return Update(
            state=view.state,
            reason=view.reason,
            reason_text=view.reason_text,
            fraction=max(fraction, view.fraction),
            eta_s=eta_s,
            view=view,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id}, {self.view.state})"


def verify_receipt(raw: ReceiptView, *, coordinator_key: bytes, job_id: str) -> VerifiedReceipt:
    """Needs no network. Raises `NotGenuine`."""
    try:
        checked = receipts.check(
            receipts.Receipt(
                network=raw.network,
                provider=raw.provider,
                coordinator_key=bytes.fromhex(raw.coordinator_key),
                report=bytes.fromhex(raw.report),
                settlement=bytes.fromhex(raw.settlement),
            ),
            coordinator_key=coordinator_key,
        )
    except (ProtocolError, ValueError) as error:
        raise NotGenuine(f"a receipt of job {job_id} does not hold: {error}", remedy="Keep it as evidence.") from error
    if checked.settlement.job_id != job_id:
        raise NotGenuine(f"a receipt of job {checked.settlement.job_id} came for job {job_id}")
    return VerifiedReceipt(settlement=checked.settlement, report=checked.report, raw=raw)
