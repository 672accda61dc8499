# SPDX-License-Identifier: Apache-2.0
"""The wallets' twins answer as the wallets do, and sign what a strict verifier accepts: both sides of the same rule."""

import base64
from typing import Any

import pytest

from qubix_chain import identity, messages
from qubix_chain.k12 import k12
from qubix_chain.messages import Scheme
from qubix_chain.transaction import Transaction
from tests.chain.vectors import OTHER_SEED, SEED, VECTORS
from tests.support.wallet_double import ExtensionWallet, RecordedNetwork, WalletConnectWallet, WalletError

pytestmark = pytest.mark.asyncio
TEXT = "Sign in to QUBIX\nnonce: 4f6c1d2e"
IDENTITY, OTHER = (vector["identity"] for vector in VECTORS["keys"][:2])
PUBLIC_KEY = identity.decode(IDENTITY)


async def _connected(network: RecordedNetwork | None = None) -> ExtensionWallet:
    wallet = ExtensionWallet(SEED, network)
    assert await wallet.getAccount() is None
    assert (await wallet.connect())["connected"] is True
    return wallet


async def test_the_extension_signs_the_bare_text_as_the_vectors_say() -> None:
    for vector in VECTORS["message_signing"]:
        wallet = ExtensionWallet(vector["seed"])
        await wallet.connect()
        assert (await wallet.getAccount() or {})["identity"] == vector["identity"]
        expected = {"signatureHex": vector["signature"], "digestHex": vector["digest"]}
        assert await wallet.signMessage(vector["text"]) == expected
        assert await wallet.signMessage({"message": vector["text"]}) == expected


async def test_each_wallet_is_known_by_its_scheme() -> None:
    extension, mobile = await _connected(), WalletConnectWallet(SEED)
    raw = bytes.fromhex((await extension.signMessage(TEXT))["signatureHex"])
    signed = await mobile.request("qubic_sign", {"from": IDENTITY, "message": TEXT})
    prefixed = base64.b64decode(signed["signature"])
    assert messages.verify(PUBLIC_KEY, TEXT, raw) is Scheme.RAW
    assert messages.verify(PUBLIC_KEY, TEXT, prefixed) is Scheme.PREFIXED
    assert base64.b64decode(signed["signedData"]) == b"Qubic Signed Message:\n" + TEXT.encode() + prefixed
    assert base64.b64decode(signed["digest"]) == messages.digest(TEXT, Scheme.PREFIXED)


async def test_a_message_of_hex_is_a_payment_and_no_sign_in() -> None:
    """What makes the rule about texts necessary: the extension would sign this, and the money would be gone."""
    wallet = await _connected()
    body = Transaction.build(source=PUBLIC_KEY, destination=identity.decode(OTHER), amount=10**15, tick=9).body
    signature = bytes.fromhex((await wallet.signMessage("0x" + body.hex()))["signatureHex"])
    assert Transaction.parse(body + signature).amount == 10**15
    assert messages.verify(PUBLIC_KEY, "0x" + body.hex(), signature) is None
    with pytest.raises(ValueError, match="could be a transaction"):
        messages.check_text("0x" + body.hex())


async def test_the_extension_sends_and_signs_transactions() -> None:
    network = RecordedNetwork(tick=500)
    wallet = await _connected(network)
    signed = await wallet.signTransaction({"toIdentity": OTHER, "amount": "7", "targetTick": 900, "inputBytes": [1, 2]})
    parsed = Transaction.parse(base64.b64decode(signed["txBytesBase64"]))
    assert (parsed.id, parsed.amount, parsed.tick, parsed.payload) == (signed["txId"], 7, 900, b"\x01\x02")
    assert network.broadcasts == []
    sent = await wallet.sendTransaction({"toIdentity": OTHER, "amount": 8, "targetTickOffset": 20})
    assert sent["targetTick"] == 520
    assert [Transaction.parse(raw).id for raw in network.broadcasts] == [sent["txId"]]


async def test_walletconnect_sends_and_signs_transactions() -> None:
    network = RecordedNetwork(tick=500, balances={IDENTITY: 42})
    wallet = WalletConnectWallet(SEED, OTHER_SEED, network=network)
    accounts = await wallet.request("qubic_requestAccounts")
    assert [(account["address"], account["amount"]) for account in accounts] == [(IDENTITY, 42), (OTHER, 0)]
    sent = await wallet.request("qubic_sendQubic", {"from": IDENTITY, "to": OTHER, "amount": 5})
    assert sent["tick"] == 505
    signed = await wallet.request(
        "qubic_signTransaction",
        {"from": OTHER, "to": IDENTITY, "amount": 0, "tick": 600, "inputType": 1, "payload": "AQI="},
    )
    parsed = Transaction.parse(base64.b64decode(signed["signedTransaction"]))
    assert (parsed.input_type, parsed.payload, parsed.id) == (1, b"\x01\x02", signed["transactionId"])
    assert [Transaction.parse(raw).id for raw in network.broadcasts] == [sent["transactionId"]]


@pytest.mark.parametrize(
    ("connected", "answer", "params", "code"),
    [
        (False, True, {"message": TEXT}, "NOT_CONNECTED"),
        (True, False, {"message": TEXT}, "USER_REJECTED"),
        (True, True, {"message": ""}, "INVALID_PARAMS"),
        (True, True, {}, "INVALID_PARAMS"),
    ],
)
async def test_the_extensions_errors(connected: bool, answer: bool, params: dict[str, Any], code: str) -> None:
    wallet = ExtensionWallet(SEED)
    wallet.connected, wallet.answer = connected, answer
    with pytest.raises(WalletError) as refused:
        await wallet.signMessage(params)
    assert refused.value.code == code


async def test_the_extension_checks_a_transaction() -> None:
    wallet = await _connected()
    for bad in ({"toIdentity": OTHER[:-1], "amount": 1}, {"toIdentity": OTHER, "amount": -1}, {"amount": 1}):
        with pytest.raises(WalletError) as refused:
            await wallet.sendTransaction(bad)
        assert refused.value.code == "INVALID_PARAMS"


@pytest.mark.parametrize(
    ("answer", "method", "params", "code"),
    [
        (False, "qubic_sign", {"from": IDENTITY, "message": TEXT}, 5000),
        ("busy", "qubic_sign", {"from": IDENTITY, "message": TEXT}, -32001),
        (True, "qubic_sign", {"from": OTHER, "message": TEXT}, -32602),
        (True, "qubic_sign", {"from": IDENTITY, "message": 5}, -32602),
        (True, "qubic_sendQubic", {"from": IDENTITY, "to": OTHER, "amount": 0}, -32602),
        (True, "qubic_sendTransaction", {"from": IDENTITY, "to": OTHER, "amount": 1, "tick": 1000}, -32002),
        (True, "qubic_nothing", {}, -32601),
    ],
)
async def test_walletconnects_errors(answer: bool | str, method: str, params: dict[str, Any], code: int) -> None:
    wallet = WalletConnectWallet(SEED)
    wallet.answer = answer
    with pytest.raises(WalletError) as refused:
        await wallet.request(method, params)
    assert refused.value.code == code


async def test_digests_are_of_the_bytes_that_were_signed() -> None:
    wallet = await _connected()
    assert (await wallet.signMessage(TEXT))["digestHex"] == k12(TEXT.encode()).hex()
