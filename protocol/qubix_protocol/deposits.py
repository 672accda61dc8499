# SPDX-License-Identifier: Apache-2.0
"""Deposits on the wire. Keys travel as identities, amounts as whole QU."""

from qubix_protocol.api import View
from qubix_protocol.messages import Id
from qubix_protocol.units import Network


class ChainView(View, frozen=True, kw_only=True):
    """`GET /chain`, and beside deposits: how the network looks from here. `state` is `ok`, or `text` says what
    people wait for."""

    state: str
    text: str
    checked_ms: int
    live_tick: int | None = None
    lag_ticks: int | None = None
    """By how many ticks deposits are read behind the network."""


class DepositIdentityView(View, frozen=True, kw_only=True):
    """`POST /account/deposit-identity`: the account's own, the same for ever. Whatever any wallet sends there, from
    `amount_min_qu` on, is credited to the account."""

    identity: str
    network: Network
    amount_min_qu: int
    chain: ChainView


class DepositView(View, frozen=True, kw_only=True):
    """QU that came in. `state`: `seen` (not credited, and `text` says why), `credited` (pays jobs), `swept` (can be
    withdrawn as well)."""

    deposit_id: Id
    tick: int
    tx_id: str
    output: int
    """Tells apart what one transaction pays in several places."""
    source: str
    amount_qu: int
    state: str
    reason: str
    text: str
    evidence: str
    seen_ms: int
    sweep_tx_id: str | None = None


class DepositsView(View, frozen=True, kw_only=True):
    """`GET /account/deposits`: newest first."""

    deposits: tuple[DepositView, ...]
    chain: ChainView
    next: str | None = None
