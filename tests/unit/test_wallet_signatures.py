# SPDX-License-Identifier: Apache-2.0
"""Why a signature is refused, of itself: no challenge before it has kept anything out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qubix_chain import crypto, messages
from qubix_chain.fourq import N, curve
from qubix_coordinator.accounts.signatures import check, key_of, require_signer
from qubix_coordinator.errors import (
    BadIdentity,
    NotProven,
    SignatureInvalid,
    SignatureNotCanonical,
    WeakKey,
    WrongScheme,
)
from qubix_protocol.wallet_text import Scheme
from tests.chain.vectors import OTHER_SEED, SEED, VECTORS

TEXT = "market.example asks for a signature of your Qubic wallet."
KEY = crypto.public_key_of(SEED)
SIGNED = {scheme: messages.sign(crypto.subseed(SEED), KEY, TEXT, messages.Scheme(scheme.value)) for scheme in Scheme}
WEAK = sorted(
    {bytes.fromhex(found["public_key"]) for found in VECTORS["low_order_public_keys"]}
    | {
        bytes.fromhex(found["public_key"])
        for found in VECTORS["verify_negative"]
        if not crypto.is_public_key(bytes.fromhex(found["public_key"]))
    }
)


@pytest.mark.parametrize("scheme", Scheme)
def test_a_wallets_own_signature_passes_in_its_scheme_alone(scheme: Scheme) -> None:
    check(KEY, TEXT, SIGNED[scheme], scheme)
    (other,) = set(Scheme) - {scheme}
    with pytest.raises(WrongScheme) as refused:
        check(KEY, TEXT, SIGNED[scheme], other)
    assert scheme.value in refused.value.remedy


def test_what_anybody_can_make_under_a_weak_key_is_no_signature() -> None:
    """Under the neutral key R = S·G satisfies the equation whatever was signed: four published libraries accept it."""
    assert len(WEAK) >= 4
    for scalar in (1, 2, 12345):
        forged = curve().encode(curve().times_generator(scalar)) + scalar.to_bytes(32, "little")
        for key in WEAK:
            with pytest.raises(WeakKey):
                check(key, TEXT, forged, Scheme.RAW)
    with pytest.raises(WeakKey):
        require_signer(bytes(32))


def test_the_twin_is_refused_as_such() -> None:
    raw = SIGNED[Scheme.RAW]
    twin = raw[:32] + (int.from_bytes(raw[32:], "little") + N).to_bytes(32, "little")
    with pytest.raises(SignatureNotCanonical):
        check(KEY, TEXT, twin, Scheme.RAW)


@pytest.mark.parametrize("length", [0, 63, 65])
def test_a_signature_has_its_length(length: int) -> None:
    with pytest.raises(SignatureInvalid):
        check(KEY, TEXT, bytes(length), Scheme.RAW)


def test_it_is_for_one_key_and_one_text() -> None:
    with pytest.raises(SignatureInvalid):
        check(crypto.public_key_of(OTHER_SEED), TEXT, SIGNED[Scheme.RAW], Scheme.RAW)
    with pytest.raises(SignatureInvalid):
        check(KEY, TEXT + " ", SIGNED[Scheme.RAW], Scheme.RAW)


@given(st.integers(0, 511))
@settings(max_examples=60, deadline=None)
def test_any_flipped_bit_refuses(bit: int) -> None:
    changed = bytearray(SIGNED[Scheme.RAW])
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(NotProven):
        check(KEY, TEXT, bytes(changed), Scheme.RAW)


@pytest.mark.parametrize("found", VECTORS["identities"]["invalid"], ids=lambda found: found["reason"])
def test_an_identity_that_is_none_is_refused(found: dict[str, str]) -> None:
    with pytest.raises(BadIdentity) as refused:
        key_of(found["identity"])
    assert refused.value.field == "identity"
