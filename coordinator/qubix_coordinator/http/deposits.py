# SPDX-License-Identifier: Apache-2.0
"""Deposits as the API shows them, and where to send QU."""

from typing import Final

from qubix_chain import identity
from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.db.database import Tx
from qubix_coordinator.deposits import pool, read, status
from qubix_coordinator.deposits.rules import DepositState, Reason
from qubix_coordinator.deposits.status import SILENT_MS, ChainState, Look
from qubix_coordinator.errors import InvalidInput, Unavailable
from qubix_coordinator.http.context import Context
from qubix_protocol.deposits import ChainView, DepositIdentityView, DepositsView, DepositView

_CHAIN_TEXT: Final = {
    ChainState.STARTING: "the market has not looked at the network yet",
    ChainState.OK: "",
    ChainState.BEHIND: "the market is still reading what the network has done; deposits follow",
    ChainState.UNREACHABLE: "the network cannot be reached; deposits and withdrawals go on by themselves once it can",
    ChainState.UNTRUSTED: "what the network tells does not fit together; nothing is credited before it does",
    ChainState.REFUSED: "the network that answers is not this market's; the operator must correct it",
}
_SILENT: Final = "no process watches the network; deposits are credited once the operator has started `qubix chain`"
_DEPOSIT_TEXT: Final = {
    DepositState.CREDITED: "on your balance; it can be withdrawn once it is swept",
    DepositState.SWEPT: "on your balance",
}


async def identity_of(context: Context, who: Principal) -> DepositIdentityView:
    """Gives the account one at its first request."""
    if not context.settings.qubic_url:
        raise Unavailable(
            "this market is connected to no Qubic network",
            remedy="Its operator sets QUBIX_QUBIC_URL, or starts the market with `qubix up`, which brings a devnet",
        )

    async def given(tx: Tx) -> tuple[bytes, Look]:
        return await pool.assign(tx, who.account_id), await status.read(tx)

    public_key, look = await context.db.run(given)
    return DepositIdentityView(
        identity=identity.encode(public_key),
        network=context.network,
        amount_min_qu=context.settings.deposit_min_qu,
        chain=chain_view(context, look),
    )


async def listed(context: Context, who: Principal, *, after: str | None, limit: int) -> DepositsView:
    """`after` is the `next` of the page before."""
    if after is not None and not (after.isascii() and after.isdigit() and len(after) < 19):
        raise InvalidInput("after", "not the `next` of a list of deposits", "Send the `next` of the page before")
    before = None if after is None else int(after)

    async def found(tx: Tx) -> tuple[list[read.Deposit], Look]:
        return await read.deposits(tx, who.account_id, before=before, limit=limit), await status.read(tx)

    deposits, look = await context.db.run(found)
    return DepositsView(
        deposits=tuple(_view(context, one) for one in deposits),
        chain=chain_view(context, look),
        next=str(deposits[-1].no) if len(deposits) == limit else None,
    )


async def chain(context: Context) -> ChainView:
    return chain_view(context, await context.db.run(status.read))


def chain_view(context: Context, look: Look) -> ChainView:
    silent = context.now_ms() - look.checked_ms > SILENT_MS
    return ChainView(
        state="silent" if silent else look.state.value,
        text=_SILENT if silent else _CHAIN_TEXT[look.state],
        checked_ms=look.checked_ms,
        live_tick=look.live_tick,
        lag_ticks=look.lag_ticks,
    )


def _view(context: Context, one: read.Deposit) -> DepositView:
    below = f"under the least deposit of {context.settings.deposit_min_qu:,} QU; it is kept and not credited"
    text = below if one.reason == Reason.BELOW_MINIMUM else _DEPOSIT_TEXT.get(DepositState(one.state), "")
    return DepositView(
        deposit_id=str(one.id),
        tick=one.tick,
        tx_id=one.tx_id,
        output=one.output,
        source=identity.encode(one.source),
        amount_qu=one.amount_qu,
        state=one.state,
        reason=one.reason,
        text=text,
        evidence=one.evidence,
        seen_ms=one.seen_ms,
        sweep_tx_id=one.sweep_tx_id,
    )
