# SPDX-License-Identifier: Apache-2.0
"""Which proof opens what, and whom a key may speak for."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix_coordinator.accounts.wallet_rules import (
    POWERS,
    PROOF_SPREAD_QU,
    Binding,
    Powers,
    Proof,
    asker,
    at_bind,
    proof_amount,
)
from qubix_protocol.units import QU_MAX

OURS, THEIRS = UUID(int=1), UUID(int=2)


def test_a_payment_proves_an_address_for_pay_outs_alone() -> None:
    assert {
        Proof.SIGNATURE: Powers(sign_in=True, be_paid=True),
        Proof.PAYMENT: Powers(sign_in=False, be_paid=True),
    } == POWERS


@pytest.mark.parametrize(
    ("speaks_for", "paid_proof", "decided"),
    [
        (None, False, Binding.BIND),
        (None, True, Binding.UPGRADE),
        (OURS, False, Binding.SAME),
        (OURS, True, Binding.SAME),
        (THEIRS, False, Binding.REFUSE),
        (THEIRS, True, Binding.REFUSE),
    ],
)
def test_a_key_speaks_for_one_account(speaks_for: UUID | None, paid_proof: bool, decided: Binding) -> None:
    assert at_bind(speaks_for, OURS, paid_proof) is decided


@given(st.integers(0, QU_MAX - PROOF_SPREAD_QU), st.integers(0, PROOF_SPREAD_QU - 1))
def test_the_amount_of_a_proof_is_above_the_least_and_within_bounds(least: int, draw: int) -> None:
    assert least < proof_amount(least, draw) <= min(QU_MAX, least + PROOF_SPREAD_QU)


@pytest.mark.parametrize(("least", "draw"), [(-1, 0), (QU_MAX, 0), (1, -1), (1, PROOF_SPREAD_QU)])
def test_other_amounts_are_refused(least: int, draw: int) -> None:
    with pytest.raises(ValueError):
        proof_amount(least, draw)


def test_addresses_are_remembered_by_their_digest() -> None:
    assert len(asker("192.0.2.1")) == 16
    assert asker("192.0.2.1") != asker("192.0.2.2")
