# SPDX-License-Identifier: Apache-2.0
"""The coordinator's twin with what the terminal asks of it beside the SDK's tests: rentals, and so on."""

import uuid
from typing import Any

import msgspec

from qubix_kernels import get, names
from qubix_protocol.api import CandidateView, EstimateBody, EstimateView, JobsView, KernelsView
from qubix_protocol.envelope import open_envelope
from qubix_protocol.messages import RentOrder
from qubix_protocol.rentals import RentalBody, RentalsView, RentalView
from qubix_protocol.states import DeviceKind, JobState, Reason, RentalReason, RentalState
from tests.support.fake_api import FakeApi, Refusal, Seen, now_ms
from tests.tui.world import MARKET


class TuiApi(FakeApi):
    def __init__(self, port: int = 0) -> None:
        super().__init__(port)
        self.rentals: dict[str, RentalView] = {}
        self.market = MARKET
        self.candidates = tuple(candidate(one.listing_id, one.model, one.rate_qu_per_h) for one in MARKET[:2])

    def _get_offers(self, seen: Seen, listing_id: str = "", readings: str = "") -> tuple[int, Any]:
        if readings:
            return super()._get_offers(seen, listing_id, readings)
        return 200, {"offers": msgspec.to_builtins(self.market), "cursor": "0.0"}

    def _get_kernels(self, seen: Seen) -> tuple[int, Any]:
        return 200, KernelsView(kernels=tuple(msgspec.to_builtins(get(name).spec) for name in names()))

    def _post_jobs(self, seen: Seen, *rest: str) -> tuple[int, Any]:
        if rest == ("estimate",):
            body = msgspec.json.decode(seen.body, type=EstimateBody)
            assert not get(body.kernel).check(body.inputs, body.params)
            return 200, EstimateView(candidates=self.candidates, flops=1e9, units=4, output={})
        if rest[1:] == ("accept",):
            return 200, self.change(
                rest[0], state=JobState.SETTLED, reason=Reason.ACCEPTED_BY_CONSUMER, reason_text="paid"
            )
        return super()._post_jobs(seen, *rest)

    def _get_jobs(self, seen: Seen, job_id: str = "", part: str = "") -> tuple[int, Any]:
        if not job_id:
            return 200, JobsView(jobs=tuple(reversed(self.jobs.values())))
        return super()._get_jobs(seen, job_id, part)

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


def candidate(listing_id: str, model: str, rate: int) -> CandidateView:
    return CandidateView(
        listing_id=listing_id,
        provider="12D3KooWprovider",
        model=model,
        backend="cuda",
        rate_qu_per_h=rate,
        run_ms=2_000,
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
