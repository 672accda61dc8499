# SPDX-License-Identifier: Apache-2.0
"""Rows as the API shows them."""

from collections.abc import Sequence
from uuid import UUID

from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.ledger.rules import owed_qu
from qubix_coordinator.rentals import rules
from qubix_coordinator.rentals.tables import Rental
from qubix_coordinator.settings import Settings
from qubix_protocol.rentals import RentalGroupView, RentalView
from qubix_protocol.states import RENTAL_REASON_TEXT, DeviceKind, RentalReason, RentalState


def times(settings: Settings) -> rules.Times:
    def ms(seconds: float) -> int:
        return round(seconds * 1000)

    return rules.Times(
        beat_ms=ms(settings.rental_beat_s),
        reach_ms=ms(settings.rental_reach_s),
        silence_ms=ms(settings.rental_silence_s),
        settle_ms=ms(settings.rental_settle_s),
        notice_ms=ms(settings.rental_notice_s),
    )


def facts(rental: Rental) -> rules.Facts:
    return rules.Facts(
        state=RentalState(rental.state),
        since_ms=rental.since_ms,
        ends_ms=rental.ends_ms,
        billed_ms=rental.billed_ms,
        affordable_ms=rules.affordable_ms(rental.rate_qu_per_h, rental.hold_qu),
        nonce_asked_ms=rental.nonce_asked_ms,
        sent_ms=rental.sent_ms,
        answered_ms=rental.answered_ms,
        unsettled_since_ms=rental.unsettled_since_ms,
    )


def view(desk: Desk, rental: Rental) -> RentalView:
    reason = RentalReason(rental.reason)
    return RentalView(
        rental_id=str(rental.id),
        state=RentalState(rental.state),
        reason=reason,
        reason_text=RENTAL_REASON_TEXT[reason],
        detail=rental.detail,
        listing_id=str(rental.listing_id),
        provider=rental.peer_id,
        device_id=rental.device_id,
        kind=DeviceKind(rental.kind),
        model=rental.model,
        backends=tuple(rental.backends),
        rate_qu_per_h=rental.rate_qu_per_h,
        seconds=rental.seconds,
        hold_qu=rental.hold_qu,
        held_qu=rental.held_qu,
        paid_qu=rental.paid_qu,
        fee_qu=rental.fee_qu,
        returned_qu=rental.returned_qu,
        billed_ms=rental.billed_ms,
        owed_qu=owed_qu(rental.rate_qu_per_h, rental.billed_ms, accepted_chunks=0),
        created_ms=rental.created_ms,
        started_ms=rental.started_ms,
        ends_ms=rental.ends_ms,
        ended_ms=rental.ended_ms,
        answered_ms=rental.answered_ms,
        closing=RentalReason(rental.closing) if rental.closing else None,
        settle_due_ms=rules.settle_due_ms(facts(rental), times(desk.settings)),
        revision=rental.revision,
        group_id=str(rental.group_id) if rental.group_id else None,
    )


def group_view(group_id: UUID, rentals: Sequence[RentalView]) -> RentalGroupView:
    """Of one rental or more."""
    return RentalGroupView(
        group_id=str(group_id),
        provider=rentals[0].provider,
        rentals=tuple(rentals),
        over=all(one.state is RentalState.ENDED for one in rentals),
        hold_qu=sum(one.hold_qu for one in rentals),
        held_qu=sum(one.held_qu for one in rentals),
        paid_qu=sum(one.paid_qu for one in rentals),
        fee_qu=sum(one.fee_qu for one in rentals),
        returned_qu=sum(one.returned_qu for one in rentals),
        billed_ms=sum(one.billed_ms for one in rentals),
        owed_qu=sum(one.owed_qu for one in rentals),
    )
