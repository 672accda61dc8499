# SPDX-License-Identifier: Apache-2.0
"""Disputes in the hands of a side or an arbiter. Made by `AsyncClient.disputes`."""

from collections.abc import Collection
from typing import Final

from qubix.session import Session
from qubix_protocol.disputes import AnswerBody, DecisionBody, DisputeBody, DisputesView, DisputeView, EvidenceBody


class AsyncDisputes:
    """What an account may do about disputes; an arbiter's token opens `all`, `judge` and `decide` alone."""

    def __init__(self, session: Session) -> None:
        self._session: Final = session

    async def open(
        self, job_id: str, statement: str, *, attempt: int | None = None, digests: Collection[str] = ()
    ) -> DisputeView:
        """Stakes the bond. `attempt` is its number in the job, where several could be meant; `digests` (SHA-256, hex)
        name what proves the statement."""
        body = DisputeBody(job_id=job_id, statement=statement, attempt=attempt, digests=tuple(digests))
        return await self._session.post("/disputes", body, DisputeView, repeatable=False)

    async def list(self, *, after: str | None = None, limit: int = 20) -> DisputesView:
        """Those that the account is a side of, newest first."""
        return await self._session.get("/disputes", DisputesView, _page(after, limit))

    async def get(self, dispute_id: str) -> DisputeView:
        return await self._session.get(f"/disputes/{dispute_id}", DisputeView)

    async def answer(
        self,
        dispute_id: str,
        statement: str,
        *,
        concede: bool = False,
        bond: bool = False,
        digests: Collection[str] = (),
    ) -> DisputeView:
        """The other side's word. `bond` stakes as much as the opener has."""
        body = AnswerBody(statement=statement, concede=concede, bond=bond, digests=tuple(digests))
        return await self._session.post(f"/disputes/{dispute_id}/answer", body, DisputeView, repeatable=False)

    async def add(self, dispute_id: str, statement: str, *, digests: Collection[str] = ()) -> DisputeView:
        """One more statement."""
        body = EvidenceBody(statement=statement, digests=tuple(digests))
        return await self._session.post(f"/disputes/{dispute_id}/evidence", body, DisputeView, repeatable=False)

    async def withdraw(self, dispute_id: str) -> DisputeView:
        """While nothing was spent or found the bond comes back. Asking twice is asking once."""
        return await self._session.post(f"/disputes/{dispute_id}/withdraw", None, DisputeView)

    async def all(self, *, after: str | None = None, limit: int = 20) -> DisputesView:
        """Every dispute, newest first (arbiters)."""
        return await self._session.get("/arbiter/disputes", DisputesView, _page(after, limit))

    async def judge(self, dispute_id: str) -> DisputeView:
        """One dispute with all its evidence (arbiters)."""
        return await self._session.get(f"/arbiter/disputes/{dispute_id}", DisputeView)

    async def decide(self, dispute_id: str, award_qu: int, reason: str) -> DisputeView:
        """So much of the stake goes to who opened it (arbiters); about much it takes two who say the same."""
        body = DecisionBody(award_qu=award_qu, reason=reason)
        return await self._session.post(f"/arbiter/disputes/{dispute_id}/decide", body, DisputeView)


def _page(after: str | None, limit: int) -> dict[str, str | int]:
    return {"limit": limit} | ({} if after is None else {"after": after})
