# SPDX-License-Identifier: Apache-2.0
"""What holds for every key, identity, text and transaction: round trips, and the refusal of whatever was changed."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qubix_chain import contracts, crypto, identity, messages
from qubix_chain.contracts import AMOUNT_QU_MAX, Output
from qubix_chain.fourq import Curve, N, P
from qubix_chain.k12 import k12
from qubix_chain.messages import Scheme
from qubix_chain.transaction import PAYLOAD_SIZE_MAX, SIZE_MIN, Transaction
from tests.chain.vectors import CURVES, OTHER_SEED, SEED

SUBSEED = crypto.subseed(SEED)
PUBLIC_KEY = crypto.public_key_of(SEED)
OTHER_KEY = crypto.public_key_of(OTHER_SEED)
DIGEST = k12(b"what is signed")
SIGNATURE = crypto.sign(SUBSEED, PUBLIC_KEY, DIGEST)
TEXT = "Sign in to QUBIX\nnonce: 4f6c1d2e"

some = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
keys = st.binary(min_size=32, max_size=32)
curves = st.sampled_from(list(CURVES.values()))
amounts = st.integers(0, AMOUNT_QU_MAX)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@some
@given(curves, st.integers(0, N - 1), st.integers(0, N - 1))
def test_multiplication_is_addition_many_times(curve: Curve, a: int, b: int) -> None:
    """Tables and wNAF agree, and multiplying by a sum is adding the products."""
    added = curve.add(curve.times_generator(a), curve.times(b, curve.generator))
    assert curve.encode(added) == curve.encode(curve.times_generator((a + b) % N))


@some
@given(curves, st.integers(0, N - 1))
def test_points_are_decoded_from_their_one_encoding(curve: Curve, scalar: int) -> None:
    encoded = curve.encode(curve.times_generator(scalar))
    point = curve.decode(encoded)
    assert point is not None
    assert curve.encode(point) == encoded
    assert curve.is_neutral(curve.add(point, curve.negative(curve.times_generator(scalar))))


@settings(max_examples=200, deadline=None)
@given(keys)
def test_whatever_is_decoded_is_encoded_to_the_same_bytes(encoded: bytes) -> None:
    on_python, on_gmp = (curve.decode(encoded) for curve in CURVES.values())
    assert on_python == on_gmp
    assert on_python is None or CURVES["int"].encode(on_python) == encoded


@pytest.mark.parametrize("low", [0, 1, P - 1, P])
@pytest.mark.parametrize("high", [0, P, P + 1, P + 2])
def test_coordinates_have_one_spelling(low: int, high: int) -> None:
    encoded = low.to_bytes(16, "little") + high.to_bytes(16, "little")
    for curve in CURVES.values():
        point = curve.decode(encoded)
        assert point is None or curve.encode(point) == encoded
        if P in (low, high % 2**127):
            assert point is None


@some
@given(keys, keys, curves)
def test_a_signature_is_its_keys_own(subseed: bytes, digest: bytes, curve: Curve) -> None:
    public_key = crypto.public_key(crypto.private_key(subseed), on=curve)
    signature = crypto.sign(subseed, public_key, digest, on=curve)
    assert crypto.verify(public_key, digest, signature, on=curve)
    assert not crypto.verify(OTHER_KEY, digest, signature, on=curve)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 511))
def test_any_flipped_bit_of_a_signature_refuses(bit: int) -> None:
    assert not crypto.verify(PUBLIC_KEY, DIGEST, flipped(SIGNATURE, bit))


@some
@given(st.integers(0, 255))
def test_any_flipped_bit_of_a_key_or_digest_refuses(bit: int) -> None:
    assert not crypto.verify(flipped(PUBLIC_KEY, bit), DIGEST, SIGNATURE)
    assert not crypto.verify(PUBLIC_KEY, flipped(DIGEST, bit), SIGNATURE)


@some
@given(st.binary(max_size=80), st.binary(max_size=40), st.binary(max_size=40))
def test_verification_never_raises(signature: bytes, public_key: bytes, digest: bytes) -> None:
    assert not crypto.verify(public_key, digest, signature)


@some
@given(st.integers(1, 2**256 // N - 1))
def test_twins_of_a_signature_are_refused(times: int) -> None:
    """s and s + N satisfy the same equation: only the first is the signature."""
    twin = int.from_bytes(SIGNATURE[32:], "little") + times * N
    assert not crypto.verify(PUBLIC_KEY, DIGEST, SIGNATURE[:32] + twin.to_bytes(32, "little"))


def test_keys_outside_the_prime_subgroup_are_refused() -> None:
    """A key with a part of low order, which signs so that the plain equation holds: strictness alone refuses it."""
    curve = CURVES["int"]
    low_order = curve.decode(bytes(32))
    assert low_order is not None
    private = int.from_bytes(crypto.private_key(SUBSEED), "little") % N
    mixed = curve.encode(curve.add(curve.times_generator(private), low_order))
    for nonce in range(1, 200):
        point = curve.encode(curve.times_generator(nonce))
        challenge = int.from_bytes(k12(point + mixed + DIGEST), "little") % N
        if challenge % 4 == 0:  # the part of order 4 vanishes
            break
    answer = (nonce - private * challenge) % N
    key = curve.decode(mixed)
    assert key is not None
    assert curve.encode(curve.add(curve.times_generator(answer), curve.times(challenge, key))) == point
    assert not crypto.verify(mixed, DIGEST, point + answer.to_bytes(32, "little"))


def test_a_signature_under_anothers_key_is_never_made() -> None:
    with pytest.raises(ValueError, match="not that of the subseed"):
        crypto.sign(SUBSEED, OTHER_KEY, DIGEST)


@pytest.mark.parametrize("seed", ["", "a" * 54, "a" * 56, "A" * 55, "a" * 54 + "1", "ä" * 55])
def test_seeds_are_checked_and_never_quoted(seed: str) -> None:
    with pytest.raises(ValueError) as refused:
        crypto.subseed(seed)
    assert not seed or seed not in str(refused.value)


def test_new_seeds_differ() -> None:
    made = {crypto.new_seed() for _ in range(50)}
    assert len(made) == 50
    assert all(len(crypto.subseed(seed)) == 32 for seed in made)


@given(keys)
def test_identities_round_trip(public_key: bytes) -> None:
    text = identity.encode(public_key)
    assert len(text) == 60
    assert identity.decode(text) == public_key
    assert identity.decode_tx_id(identity.encode_tx_id(public_key)) == public_key


@settings(derandomize=True)
@given(keys, st.integers(0, 59), st.integers(1, 25))
def test_any_changed_letter_of_an_identity_refuses(public_key: bytes, place: int, by: int) -> None:
    """But for one chance in 2^18 that the checksum agrees, hence the same examples in each run."""
    text = identity.encode(public_key)
    letter = chr((ord(text[place]) - 65 + by) % 26 + 65)
    with pytest.raises(ValueError, match=r"^checksum: "):
        identity.decode(text[:place] + letter + text[place + 1 :])


@given(st.integers(0, 2**64 - 1), st.integers(0, 3))
def test_a_second_spelling_is_no_identity(word: int, place: int) -> None:
    """Any word can also be written with 2^64 added, under the same checksum."""
    public_key = bytes(8 * place) + word.to_bytes(8, "little") + bytes(24 - 8 * place)
    canonical = identity.encode(public_key)
    number, letters = word + 2**64, ""
    for _ in range(14):
        number, letter = divmod(number, 26)
        letters += chr(65 + letter)
    spelt = canonical[: 14 * place] + letters + canonical[14 * place + 14 :]
    assert spelt != canonical
    with pytest.raises(ValueError, match=f"^spelling: .*{canonical}"):
        identity.decode(spelt)


@pytest.mark.parametrize("text", ["", "A" * 59, "a" * 60, "Ä" * 60, "A" * 55 + "FXIB ", "A" * 56 + "FXIC"])
def test_bad_identities_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        identity.decode(text)
    with pytest.raises(ValueError):
        identity.decode_tx_id(text.swapcase())


transactions = st.builds(
    lambda **fields: Transaction.build(source=PUBLIC_KEY, **fields),
    destination=keys,
    amount=amounts,
    tick=st.integers(0, 2**32 - 1),
    input_type=st.integers(0, 2**16 - 1),
    payload=st.binary(max_size=PAYLOAD_SIZE_MAX),
)


@some
@given(transactions, st.data())
def test_transactions_round_trip_and_refuse_any_flipped_bit(unsigned: Transaction, data: st.DataObject) -> None:
    signed = unsigned.sign(SUBSEED)
    raw = signed.to_bytes()
    assert len(raw) == SIZE_MIN + len(signed.payload)
    assert Transaction.parse(raw) == signed
    assert Transaction.parse(raw).id == signed.id
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    with pytest.raises(ValueError):
        Transaction.parse(flipped(raw, bit))
    for other in (raw[:-1], raw + b"\0"):
        with pytest.raises(ValueError, match=r"^length: "):
            Transaction.parse(other)


GOOD: dict[str, Any] = {"source": PUBLIC_KEY, "destination": OTHER_KEY, "amount": 1, "tick": 1}


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("amount", -1, "amount: not negative, this one is -1"),
        ("amount", 10**15 + 1, r"amount: at most 10\^15 QU"),
        ("amount", 2**63, r"amount: at most 10\^15 QU"),
        ("amount", True, "amount: a whole number .* not bool"),
        ("amount", 1.0, "amount: a whole number .* not float"),
        ("amount", "1", "amount: a whole number .* not str"),
        ("tick", -1, "tick: not negative"),
        ("tick", 2**32, "tick: at most"),
        ("tick", True, "tick: a whole number"),
        ("input_type", 2**16, "input_type: at most"),
        ("input_type", -1, "input_type: not negative"),
        ("payload", bytes(1025), "payload: at most 1024 bytes"),
        ("payload", "text", "payload: "),
        ("source", bytes(31), "source: a public key of 32 bytes"),
        ("destination", "A" * 32, "destination: a public key of 32 bytes"),
    ],
)
def test_what_is_out_of_range_is_refused_with_a_reason(field: str, value: object, reason: str) -> None:
    assert Transaction.build(**GOOD).amount == 1
    with pytest.raises(ValueError, match=f"^{reason}"):
        Transaction.build(**(GOOD | {field: value}))


@pytest.mark.parametrize("amount", [0, 10**15])
def test_the_bounds_of_an_amount_are_allowed(amount: int) -> None:
    assert Transaction.parse(Transaction.build(**(GOOD | {"amount": amount})).sign(SEED).to_bytes()).amount == amount


def test_only_the_source_signs_and_the_unsigned_has_no_id() -> None:
    unsigned = Transaction.build(**GOOD)
    with pytest.raises(ValueError, match=r"^source: "):
        unsigned.sign(OTHER_SEED)
    for use in (unsigned.to_bytes, lambda: unsigned.id):
        with pytest.raises(ValueError, match="not signed yet"):
            use()
    with pytest.raises(ValueError, match=r"^signature: 64 bytes"):
        unsigned.with_signature(bytes(63))
    forged = unsigned.with_signature(bytes(64))
    assert not forged.is_signed_by_source
    assert Transaction.parse(forged.to_bytes(), verify=False) == forged
    with pytest.raises(ValueError, match=r"^signature: "):
        Transaction.parse(forged.to_bytes())


outputs = st.lists(st.tuples(keys.filter(any), st.integers(1, 10**12)), min_size=1, max_size=25)


@given(outputs)
def test_send_to_many_round_trips(paid: list[tuple[bytes, int]]) -> None:
    payload, amount = contracts.send_to_many(paid)
    assert amount == sum(qu for _, qu in paid) + 10
    assert contracts.parse_send_to_many(payload) == tuple(Output(n, *output) for n, output in enumerate(paid))


@pytest.mark.parametrize(
    "paid",
    [
        [],
        [(OTHER_KEY, 1)] * 26,
        [(bytes(32), 1)],
        [(bytes(31), 1)],
        [(OTHER_KEY, 0)],
        [(OTHER_KEY, -1)],
        [(OTHER_KEY, True)],
        [(OTHER_KEY, 10**15)],
        [(OTHER_KEY, 10**15 // 2)] * 2,
    ],
)
def test_send_to_many_refuses_what_the_contract_would_refund(paid: list[tuple[bytes, int]]) -> None:
    with pytest.raises(ValueError):
        contracts.send_to_many(paid)


def test_send_to_many_is_read_strictly() -> None:
    payload, _ = contracts.send_to_many([(OTHER_KEY, 1)])
    for bad in (payload[:-1], payload + b"\0", payload[:800] + b"\xff" * 8 + payload[808:]):
        with pytest.raises(ValueError):
            contracts.parse_send_to_many(bad)
    later = bytes(32) + OTHER_KEY + bytes(32 * 23) + bytes(8) + (5).to_bytes(8, "little") + bytes(8 * 23)
    assert contracts.parse_send_to_many(later) == (Output(1, OTHER_KEY, 5),)


def test_contract_addresses_are_no_keys() -> None:
    assert contracts.contract_index(PUBLIC_KEY) is None
    assert contracts.contract_index(identity.NULL) is None
    assert contracts.contract_index(contracts.contract_id(contracts.MSVAULT)) == 11
    for index in (-1, 2**64, True, 1.0):
        with pytest.raises(ValueError):
            contracts.contract_id(index)  # type: ignore[arg-type]


printable = st.text(st.characters(categories=["L", "N", "P", "S"], include_characters=" \n"), min_size=1, max_size=200)


@some
@given(printable.filter(str.strip), st.sampled_from(Scheme), st.integers(0, 511))
def test_messages_are_accepted_in_their_own_scheme_alone(text: str, scheme: Scheme, bit: int) -> None:
    signature = messages.sign(SUBSEED, PUBLIC_KEY, text, scheme)
    assert messages.verify(PUBLIC_KEY, text, signature) is scheme
    assert messages.verify(PUBLIC_KEY, text + ".", signature) is None
    assert messages.verify(OTHER_KEY, text, signature) is None
    assert messages.verify(PUBLIC_KEY, text, flipped(signature, bit)) is None


BODY = Transaction.build(**GOOD).body


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n ",
        "a\0b",
        "a\tb",
        "\x1b[31mred",
        "a\u202eb",
        "\ud800",
        "x" * 4097,
        BODY.hex(),
        "0x" + BODY.hex().upper(),
    ],
)
def test_what_must_not_be_signed_is_neither_signed_nor_accepted(text: str) -> None:
    with pytest.raises(ValueError, match=r"^message: "):
        messages.sign(SUBSEED, PUBLIC_KEY, text)
    signature = crypto.sign(SUBSEED, PUBLIC_KEY, k12(text.encode(errors="surrogatepass")))
    assert messages.verify(PUBLIC_KEY, text, signature) is None


@given(st.data())
def test_no_printable_text_is_the_body_of_a_transaction(data: st.DataObject) -> None:
    """The two bytes of a payload's size are at least 0x0A0A = 2570 in printable text, and at most 1024 in a body."""
    text = data.draw(st.text(st.characters(min_codepoint=10, max_codepoint=126), min_size=80, max_size=300))
    raw = text.encode()
    assert int.from_bytes(raw[78:80], "little") != len(raw) - 80


def test_a_signed_message_is_no_transaction() -> None:
    assert messages.verify(PUBLIC_KEY, TEXT, messages.sign(SUBSEED, PUBLIC_KEY, TEXT)) is Scheme.RAW
    signed = Transaction.build(**GOOD).sign(SEED)
    assert signed.signature is not None
    assert messages.verify(PUBLIC_KEY, BODY.hex(), signed.signature) is None
