# SPDX-License-Identifier: Apache-2.0
"""The coordinator's twin with what the terminal asks of it beside the SDK's tests: rentals, and so on."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from qubix_kernels import get, names
from qubix_protocol.api import (
    CandidateView,
    EstimateBody,
    EstimateView,
    KernelsView,
    ObstacleView,
    StatementLine,
    StatementView,
)
from qubix_protocol.deposits import ChainView, DepositIdentityView, DepositsView, DepositView
from qubix_protocol.earnings import (
    EarningsListing,
    EarningsPeriod,
    EarningsView,
    Period,
    Sums,
    WorkKind,
    WorksView,
    WorkView,
)
from qubix_protocol.envelope import open_envelope
from qubix_protocol.history import GaugeView, HistoryPoint, HistorySource, HistoryView, ListingChange
from qubix_protocol.messages import RentOrder
from qubix_protocol.rentals import RentalBody, RentalsView, RentalView
from qubix_protocol.reputation import ReputationPart, ReputationView
from qubix_protocol.selftest import SelfTestView
from qubix_protocol.states import Availability, DeviceKind, RentalReason, RentalState
from qubix_protocol.wallet_text import ChallengeText
from qubix_protocol.wallets import (
    ChallengeBody,
    ChallengeView,
    SessionView,
    SignedBody,
    SignedInView,
    WalletsView,
    WalletView,
)
from qubix_protocol.withdrawals import (
    STATE_TEXT,
    AddressBody,
    AddressesView,
    AddressView,
    WithdrawableView,
    WithdrawalBody,
    WithdrawalReason,
    WithdrawalState,
    WithdrawalsView,
    WithdrawalView,
)
from tests.support.fake_api import TOKEN, Refusal, Seen, now_ms
from tests.support.fake_disputes import FakeDisputes
from tests.tui.world import MARKET

MOMENT_MS: Final = 1_790_000_000_000
IDENTITY: Final = "SUZFFQSCVPHYYBDCQODEMFAOKRJDDDIRJFFIWFLRDDJQRPKMJNOCSSKHXHGK"
CHAIN: Final = ChainView(state="ok", text="", checked_ms=MOMENT_MS, live_tick=1_000, lag_ticks=0)


class TuiApi(FakeDisputes):
    def __init__(self) -> None:
        super().__init__()
        self.earned: list[EarningsPeriod] = []
        self.works: list[WorkView] = []
        self.statement: list[StatementLine] = []
        self.deposits: list[DepositView] = []
        self.withdrawals: dict[str, WithdrawalView] = {}
        self.addresses: list[AddressView] = []
        self.signed_in: list[str] = []
        self.selftest: dict[str, Any] = {}
        self.rentals: dict[str, RentalView] = {}
        self.market = MARKET
        self.candidates = tuple(candidate(one.listing_id, one.model, one.rate_qu_per_h) for one in MARKET[:2])

    # Market and jobs

    def _get_offers(self, seen: Seen, listing_id: str = "", part: str = "") -> tuple[int, Any]:
        if part == "history":
            return 200, self._history(seen, listing_id)
        if part == "reputation":
            text = "9 of 10 checks passed, for 4 consumers"
            parts = (ReputationPart(name="checks", value=0.9, text="90 of 100 results were right", numbers={}),)
            return 200, ReputationView(listing_id=listing_id, reliability=0.9, text=text, parts=parts)
        if part == "selftest":
            return 200, SelfTestView(listing_id=listing_id, verified=True, score=9.0, **self.selftest)
        return 200, {"offers": msgspec.to_builtins(self.market), "cursor": "0.0"}

    def _get_kernels(self, seen: Seen) -> tuple[int, Any]:
        return 200, KernelsView(kernels=tuple(msgspec.to_builtins(get(name).spec) for name in names()))

    def _history(self, seen: Seen, listing_id: str) -> HistoryView:
        since_ms = int(seen.query["since"][0])
        gauge = GaugeView(min=40.0, mean=50.0, max=60.0, last=50.0)
        point = HistoryPoint(
            start_ms=since_ms, samples=1, utilisation_pct=None, temperature_c=gauge, memory_used_bytes=None,
            power_mw=None, clock_mhz=None, memory_total_bytes=None, throttled=None,
        )  # fmt: skip
        change = ListingChange(at_ms=MOMENT_MS, rate_qu_per_h=4_321, availability=Availability.AVAILABLE)
        return HistoryView(
            listing_id=listing_id, source=HistorySource.MINUTE, bucket_ms=60_000, since_ms=since_ms,
            until_ms=since_ms + 3_600_000, points=(point,), changes=(change,),
        )  # fmt: skip

    def _post_offers(self, seen: Seen, listing_id: str, part: str) -> tuple[int, Any]:
        assert part == "selftest"
        raise Refusal(403, "forbidden", "the device is not yours", remedy="Ask its owner", field="listing_id")

    def _post_jobs(self, seen: Seen, *rest: str) -> tuple[int, Any]:
        if rest == ("estimate",):
            body = msgspec.json.decode(seen.body, type=EstimateBody)
            assert not get(body.kernel).check(body.inputs, body.params)
            return 200, EstimateView(
                candidates=self.candidates, flops=1e9, units=4, output={}, fitting=2, cap_least_qu=37,
                obstacles=(ObstacleView(obstacle="backend", why="it has no back end for this kernel", offers=2),),
            )  # fmt: skip
        return super()._post_jobs(seen, *rest)

    # Provider

    def _get_account(self, seen: Seen, *rest: str) -> tuple[int, Any]:
        if rest == ("earnings",):
            return 200, self._own_earnings(Period(seen.query["by"][0]))
        if rest == ("work",):
            return 200, WorksView(work=tuple(self.works))
        if rest == ("statement",):
            return 200, StatementView(lines=tuple(self.statement))
        if rest == ("deposits",):
            return 200, DepositsView(deposits=tuple(self.deposits), chain=CHAIN)
        if rest == ("addresses",):
            return 200, AddressesView(addresses=tuple(self.addresses))
        return super()._get_account(seen, *rest)

    def _own_earnings(self, by: Period) -> EarningsView:
        whole = Sums(**sums(sum(one.net_qu for one in self.earned), len(self.earned)))
        listings = (
            (
                EarningsListing(
                    listing_id=MARKET[0].listing_id,
                    provider=MARKET[0].provider,
                    model=MARKET[0].model,
                    **sums(whole.net_qu, whole.settlements),
                ),
            )
            if self.earned
            else ()
        )
        return EarningsView(by=by, tz="UTC", whole=whole, periods=tuple(self.earned), listings=listings)

    # Wallet

    def _post_account(self, seen: Seen, *rest: str) -> tuple[int, Any]:
        if rest == ("deposit-identity",):
            return 200, DepositIdentityView(identity=IDENTITY, network="devnet", amount_min_qu=1_000, chain=CHAIN)
        assert rest == ("addresses",)
        body = msgspec.json.decode(seen.body, type=AddressBody)
        view = AddressView(identity=body.identity, label=body.label, added_ms=MOMENT_MS, usable_ms=MOMENT_MS)
        self.addresses.append(view)
        return 200, view

    def _get_wallets(self, seen: Seen) -> tuple[int, Any]:
        wallet = WalletView(
            identity=IDENTITY, proof="signature", may_sign_in=True, may_be_paid=True, since_ms=MOMENT_MS,
            chain_balance_qu=77_000,
        )  # fmt: skip
        return 200, WalletsView(wallets=(wallet,), balance_qu=self.balance_qu, held_qu=0)

    def _get_chain(self, seen: Seen) -> tuple[int, Any]:
        return 200, CHAIN

    def _get_withdrawals(self, seen: Seen, which: str = "") -> tuple[int, Any]:
        if which == "limits":
            return 200, WithdrawableView(
                balance_qu=self.balance_qu, withdrawable_qu=900, unswept_qu=0, new_earnings_qu=100, amount_min_qu=10,
                amount_max_qu=10_000, day_left_qu=10_000, approval_above_qu=9_000, address_delay_s=0,
                text="100 QU were earned lately",
            )  # fmt: skip
        return 200, WithdrawalsView(withdrawals=tuple(self.withdrawals.values()))

    def _post_withdrawals(self, seen: Seen, which: str = "", action: str = "") -> tuple[int, Any]:
        if action == "cancel":
            view = withdrawal(self.withdrawals[which].amount_qu, WithdrawalState.CANCELLED, which)
        else:
            body = msgspec.json.decode(seen.body, type=WithdrawalBody)
            if body.amount_qu > 900:
                raise Refusal(
                    402, "not_enough_balance", "only 900 QU can go out", remedy="Ask for less", field="amount_qu"
                )
            view = withdrawal(body.amount_qu, WithdrawalState.WAITING, str(uuid.uuid4()), body.destination)
        self.withdrawals[view.withdrawal_id] = view
        return 200, view

    def _post_wallet(self, seen: Seen, action: str) -> tuple[int, Any]:
        """A challenge of this address, and a session for whoever signs it."""
        if action == "challenge":
            body = msgspec.json.decode(seen.body, type=ChallengeBody)
            said = ChallengeText(
                domain=f"127.0.0.1:{self.port}", network="devnet", identity=body.identity, purpose=body.purpose,
                account="", nonce="ab" * 16, issued=datetime.now(UTC).replace(microsecond=0),
                expires=datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=5),
            )  # fmt: skip
            return 200, ChallengeView(
                text=said.text(), identity=body.identity, domain=said.domain, network="devnet", purpose=body.purpose,
                expires_ms=now_ms() + 300_000,
            )  # fmt: skip
        signed = msgspec.json.decode(seen.body, type=SignedBody)
        self.signed_in.append(signed.identity)
        session = SessionView(
            session_id=str(uuid.uuid4()), name=signed.name, scopes=("user",), created_ms=now_ms(),
            expires_ms=now_ms() + 3_600_000, identity=signed.identity,
        )  # fmt: skip
        return 200, SignedInView(account_id=str(uuid.uuid4()), token=TOKEN, created=True, session=session)

    # Rentals

    def _get_rentals(self, seen: Seen, rental_id: str = "") -> tuple[int, Any]:
        if rental_id:
            return 200, self.rentals[rental_id]
        return 200, RentalsView(rentals=tuple(self.rentals.values()))

    def _post_rentals(self, seen: Seen, *rest: str) -> tuple[int, Any]:
        if rest:
            return self._change_rental(rest[0], rest[1])
        body = msgspec.json.decode(seen.body, type=RentalBody)
        opened = open_envelope(
            bytes.fromhex(body.order), network="devnet", audience=self.key.public, now_ms=now_ms()
        ).body(RentOrder)
        assert (opened.listing_id, opened.seconds) == (body.listing_id, body.seconds)
        one = next(offer for offer in self.market if offer.listing_id == body.listing_id)
        view = rental(one.model, seconds=body.seconds, rate_qu_per_h=one.rate_qu_per_h, listing_id=one.listing_id)
        self.rentals[view.rental_id] = view
        return 201, view

    def _change_rental(self, rental_id: str, action: str) -> tuple[int, Any]:
        view = self.rentals[rental_id]
        if action == "stop":
            changes: dict[str, Any] = {
                "state": RentalState.ENDED,
                "reason": RentalReason.STOPPED_BY_CONSUMER,
                "held_qu": 0,
                "returned_qu": view.hold_qu,
            }
        elif action == "extend":
            changes = {"seconds": view.seconds + 600}
        else:
            raise Refusal(404, "not_found", action)
        self.rentals[rental_id] = msgspec.structs.replace(view, **changes)
        return 200, self.rentals[rental_id]


def sums(net_qu: int, settlements: int) -> dict[str, int]:
    return {
        "earned_qu": net_qu, "fee_qu": net_qu // 40, "awarded_qu": 0, "taken_back_qu": 0, "net_qu": net_qu,
        "settlements": settlements,
    }  # fmt: skip


def period(day: str, net_qu: int) -> EarningsPeriod:
    return EarningsPeriod(first_day=day, since_ms=MOMENT_MS, until_ms=MOMENT_MS + 86_400_000, **sums(net_qu, 1))


def named(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def worked(name: str, **changes: Any) -> WorkView:
    given: dict[str, Any] = {
        "kind": WorkKind.JOB, "work_id": named(name), "job_id": named(name), "rental_id": None,
        "listing_id": MARKET[0].listing_id,
        "provider": MARKET[0].provider, "model": MARKET[0].model, "kernel": "matmul", "state": "accepted",
        "reason": "completed", "reason_text": "finished by the provider", "created_ms": MOMENT_MS,
        "started_ms": MOMENT_MS, "ended_ms": MOMENT_MS + 2_000, "billed_ms": 2_000, "rate_qu_per_h": 90_000,
        "paid_qu": 49, "fee_qu": 1, "owed_qu": 0, "taken_back_qu": 0, **changes,
    }  # fmt: skip
    return WorkView(**given)


def withdrawal(amount_qu: int, state: WithdrawalState, name: str, destination: str = IDENTITY) -> WithdrawalView:
    return WithdrawalView(
        withdrawal_id=name, account_id=str(uuid.uuid4()), destination=destination, amount_qu=amount_qu, state=state,
        reason=WithdrawalReason.DELAY, text=STATE_TEXT[state], detail="", automatic=False, created_ms=MOMENT_MS,
        not_before_ms=MOMENT_MS, due_ms=None, ended_ms=None, tx_id=None, transactions=(), revision=0,
    )  # fmt: skip


def candidate(listing_id: str, model: str, rate: int) -> CandidateView:
    return CandidateView(
        listing_id=listing_id,
        provider="12D3KooWprovider",
        model=model,
        backend="cuda",
        rate_qu_per_h=rate,
        run_ms=2_000,
        run_low_ms=1_800,
        run_high_ms=2_400,
        time_low_ms=2_100,
        time_ms=2_300,
        time_high_ms=2_800,
        cost_low_qu=rate // 2_000,
        cost_qu=rate // 1_800,
        cost_high_qu=rate // 1_600,
    )


def rental(model: str, **changes: Any) -> RentalView:
    given: dict[str, Any] = {
        "rental_id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"rental of {model}")),
        "state": RentalState.ACTIVE,
        "reason": RentalReason.NONE,
        "reason_text": "",
        "detail": "",
        "listing_id": str(uuid.uuid5(uuid.NAMESPACE_OID, model)),
        "provider": "12D3KooWprovider",
        "device_id": "GPU-1",
        "kind": DeviceKind.CUDA,
        "model": model,
        "backends": ("cuda",),
        "rate_qu_per_h": 60_000,
        "seconds": 3_600,
        "hold_qu": 60_000,
        "held_qu": 60_000,
        "paid_qu": 0,
        "fee_qu": 0,
        "returned_qu": 0,
        "billed_ms": 61_000,
        "owed_qu": 1_017,
        "created_ms": 1_790_000_000_000,
        "started_ms": 1_790_000_001_000,
        "ends_ms": 1_790_003_601_000,
        "ended_ms": None,
        "answered_ms": 1_790_000_061_000,
        **changes,
    }
    return RentalView(**given)
