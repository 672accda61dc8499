# SPDX-License-Identifier: Apache-2.0
"""Every reference vector, each negative one included, on Python's integers and on GMP's."""

import base64
import re
import subprocess
import sys
from typing import Any

import pytest

from qubix_chain import crypto, fourq, identity, messages
from qubix_chain.contracts import QUTIL, contract_id, contract_index, parse_send_to_many, send_to_many
from qubix_chain.fourq import Curve
from qubix_chain.k12 import k12
from qubix_chain.messages import Scheme
from qubix_chain.transaction import Transaction
from tests.chain.vectors import CURVES, VECTORS, names

KEYS, SIGNATURES, NEGATIVE = VECTORS["keys"], VECTORS["signatures"], VECTORS["verify_negative"]
TRANSACTIONS, INVALID = VECTORS["transactions"], VECTORS["transactions_invalid"]


@pytest.fixture(params=CURVES.values(), ids=CURVES)
def curve(request: pytest.FixtureRequest) -> Curve:
    chosen: Curve = request.param
    return chosen


def test_constants() -> None:
    constants = VECTORS["constants"]
    assert tuple(int(word, 16) for word in constants["d"]) == fourq.D
    assert tuple(int(word, 16) for word in constants["generator_x"]) == fourq.GENERATOR_X
    assert tuple(int(word, 16) for word in constants["generator_y"]) == fourq.GENERATOR_Y
    assert int(constants["order_N"], 16) == fourq.N


def test_the_generator_is_encoded_and_has_the_order_n(curve: Curve) -> None:
    encoded = bytes.fromhex(VECTORS["constants"]["generator_encoded"])
    assert curve.encode(curve.generator) == encoded
    decoded = curve.decode(encoded)
    assert decoded is not None
    assert curve.in_prime_subgroup(decoded)
    assert not curve.is_neutral(curve.times(VECTORS["constants"]["cofactor"], decoded))


@pytest.mark.parametrize("vector", VECTORS["k12"], ids=lambda vector: str(vector["input_pattern_len"]))
def test_k12(vector: dict[str, Any]) -> None:
    data = bytes(index % 251 for index in range(vector["input_pattern_len"]))
    if "input" in vector:
        assert data.hex() == vector["input"]
    for length in (3, 32, 64):
        assert k12(data, length).hex() == vector[f"out{length}"]


@pytest.mark.parametrize("vector", KEYS, ids=names(KEYS, "identity"))
def test_keys(vector: dict[str, Any], curve: Curve) -> None:
    subseed = crypto.subseed(vector["seed"])
    private_key = crypto.private_key(subseed)
    public_key = crypto.public_key(private_key, on=curve)
    assert (subseed.hex(), private_key.hex(), public_key.hex()) == (
        vector["subseed"],
        vector["private_key"],
        vector["public_key"],
    )
    assert identity.encode(public_key) == vector["identity"]
    assert identity.decode(vector["identity"]) == public_key
    assert k12(public_key, 3).hex() == vector["checksum_bytes"]
    assert crypto.is_public_key(public_key)


@pytest.mark.parametrize("text", VECTORS["identities"]["valid"])
def test_valid_identities(text: str) -> None:
    assert identity.encode(identity.decode(text)) == text


RULES = {
    "checksum letter changed": "checksum",
    "body letter changed": "checksum",
    "two letters swapped": "checksum",
    "lower case": "alphabet",
    "61 letters": "length",
    "digit": "alphabet",
}


@pytest.mark.parametrize(
    "vector", VECTORS["identities"]["invalid"], ids=names(VECTORS["identities"]["invalid"], "reason")
)
def test_invalid_identities_name_the_broken_rule(vector: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{RULES[vector['reason']]}: "):
        identity.decode(vector["identity"])


@pytest.mark.parametrize("vector", VECTORS["contract_addresses"], ids=lambda vector: str(vector["index"]))
def test_contract_addresses(vector: dict[str, Any]) -> None:
    address = contract_id(vector["index"])
    assert address.hex() == vector["public_key"]
    assert identity.encode(address) == vector["identity"]
    assert identity.decode(vector["identity"]) == address
    assert contract_index(address) == (vector["index"] or None)


@pytest.mark.parametrize("vector", SIGNATURES, ids=names(SIGNATURES, "message_desc"))
def test_signatures(vector: dict[str, Any], curve: Curve) -> None:
    digest, signature = k12(_described(vector)), bytes.fromhex(vector["signature"])
    assert digest.hex() == vector["digest"]
    public_key = crypto.public_key_of(vector["seed"])
    assert crypto.sign(crypto.subseed(vector["seed"]), public_key, digest, on=curve) == signature
    assert crypto.verify(public_key, digest, signature, on=curve)


@pytest.mark.parametrize("vector", VECTORS["core_test_sign"], ids=names(VECTORS["core_test_sign"], "subseed"))
def test_signatures_of_the_nodes_own_tests(vector: dict[str, Any], curve: Curve) -> None:
    subseed, digest = bytes.fromhex(vector["subseed"]), bytes.fromhex(vector["digest"])
    public_key, signature = bytes.fromhex(vector["public_key"]), bytes.fromhex(vector["signature"])
    assert crypto.public_key(crypto.private_key(subseed), on=curve) == public_key
    assert crypto.sign(subseed, public_key, digest, on=curve) == signature
    assert crypto.verify(public_key, digest, signature, on=curve)


@pytest.mark.parametrize("vector", NEGATIVE, ids=names(NEGATIVE, "why"))
def test_what_a_node_refuses_is_refused(vector: dict[str, Any], curve: Curve) -> None:
    """Forgeries, twins and low-order keys, also those that published libraries accept."""
    public_key, digest, signature = (bytes.fromhex(vector[name]) for name in ("public_key", "digest", "signature"))
    assert vector["expected"] is False
    assert not crypto.verify(public_key, digest, signature, on=curve)


def test_published_libraries_do_accept_some_of_these() -> None:
    """Else the vectors would not tell strict from lax."""
    assert sum(bool(vector["accepted_by"]) for vector in NEGATIVE) == 3


@pytest.mark.parametrize("vector", VECTORS["low_order_public_keys"], ids=lambda vector: vector["name"])
def test_low_order_keys_are_no_keys(vector: dict[str, Any], curve: Curve) -> None:
    public_key = bytes.fromhex(vector["public_key"])
    assert not crypto.is_public_key(public_key)
    point = curve.decode(public_key)
    assert point is not None
    assert curve.is_neutral(curve.times(VECTORS["constants"]["cofactor"], point))
    assert not curve.in_prime_subgroup(point)


@pytest.mark.parametrize("vector", VECTORS["message_signing"], ids=names(VECTORS["message_signing"], "text"))
def test_messages_of_the_extension(vector: dict[str, Any]) -> None:
    public_key, signature = crypto.public_key_of(vector["seed"]), bytes.fromhex(vector["signature"])
    assert identity.encode(public_key) == vector["identity"]
    assert messages.check_text(vector["text"]).hex() == vector["signed_bytes"]
    assert messages.digest(vector["text"], Scheme.RAW).hex() == vector["digest"]
    assert messages.sign(crypto.subseed(vector["seed"]), public_key, vector["text"]) == signature
    assert messages.verify(public_key, vector["text"], signature) is Scheme.RAW


@pytest.mark.parametrize("vector", TRANSACTIONS, ids=names(TRANSACTIONS, "name"))
def test_transactions(vector: dict[str, Any]) -> None:
    built = Transaction.build(
        source=identity.decode(vector["source"]),
        destination=identity.decode(vector["destination"]),
        amount=int(vector["amount"]),
        tick=vector["tick"],
        input_type=vector["input_type"],
        payload=bytes.fromhex(vector["payload"]),
    )
    assert built.body.hex() == vector["body"]
    assert built.digest.hex() == vector["digest"]
    signed = built.sign(vector["seed"])
    assert signed.signature is not None
    assert signed.signature.hex() == vector["signature"]
    assert signed.to_bytes().hex() == vector["tx"]
    assert base64.b64encode(signed.to_bytes()).decode() == vector["tx_base64"]
    assert signed.id == vector["tx_id"]
    assert identity.decode_tx_id(signed.id).hex() == vector["tx_hash32"]
    assert Transaction.parse(signed.to_bytes()) == signed
    assert len(signed.payload) == vector["input_size"]


def _described(vector: dict[str, Any]) -> bytes:
    """The message: written out where it is short, else told by a formula."""
    if "message" in vector:
        return bytes.fromhex(vector["message"])
    added, length = map(int, re.findall(r"\+(\d+)\) mod 256, length (\d+)", vector["message_desc"])[0])
    return bytes((index % 251 + added) % 256 for index in range(length))


REASONS = {
    "amount changed after signing": "^signature: ",
    "truncated by one byte": "^length: ",
    "negative amount (-1), correctly signed": "^amount: not negative",
}


@pytest.mark.parametrize("vector", INVALID, ids=names(INVALID, "why"))
def test_invalid_transactions(vector: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=REASONS[vector["why"]]):
        Transaction.parse(bytes.fromhex(vector["tx"]))


def test_send_to_many() -> None:
    vector = next(vector for vector in TRANSACTIONS if "SendToMany" in vector["name"])
    assert identity.decode(vector["destination"]) == contract_id(QUTIL)
    outputs = parse_send_to_many(bytes.fromhex(vector["payload"]))
    assert [(output.index, output.amount) for output in outputs] == [(0, 100), (1, 200), (2, 300)]
    payload, amount = send_to_many((output.destination, output.amount) for output in outputs)
    assert payload.hex() == vector["payload"]
    assert amount == int(vector["amount"])


WITHOUT_GMP = """
import sys
sys.modules["gmpy2"] = None
from qubix_chain import crypto, fourq
assert fourq.curve()._number is int
public_key = crypto.public_key_of(sys.argv[1])
signature = crypto.sign(crypto.subseed(sys.argv[1]), public_key, bytes.fromhex(sys.argv[2]))
print(signature.hex(), crypto.verify(public_key, bytes.fromhex(sys.argv[2]), signature))
"""


def test_gmp_is_used_where_it_is_and_never_needed() -> None:
    assert fourq.curve()._number is CURVES["gmpy2"]._number
    vector = SIGNATURES[3]
    command = [sys.executable, "-c", WITHOUT_GMP, vector["seed"], vector["digest"]]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert printed.split() == [vector["signature"], "True"]
