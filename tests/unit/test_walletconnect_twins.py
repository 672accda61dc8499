# SPDX-License-Identifier: Apache-2.0
"""The twins that the pages' WalletConnect is tried against, held to published vectors and to the specification."""

import contextlib
import json
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support import wc_crypto
from tests.support.wc_crypto import Refused
from tests.support.wc_relay import PROJECT, UNAUTHORIZED, RelayTwin

# Of the reference client's own tests (packages/utils/test, Apache-2.0) and of the specification.
PRIVATE_A, PUBLIC_A = (
    "1fb63fca5c6ac731246f2f069d3bc2454345d5208254aa8ea7bffc6d110c8862",
    "ff7a7d5767c362b0a17ad92299ebdb7831dcbd9a56959c01368c7404543b3342",
)
PRIVATE_B, PUBLIC_B = (
    "36bf507903537de91f5e573666eaa69b1fa313974f23b2b59645f20fea505854",
    "590c2c627be7af08597091ff80dd41f7fa28acd10ef7191d7e830e116d3a186a",
)
SYM_KEY = bytes.fromhex("0653ca620c7b4990392e1c53c4a51c14a2840cd20f0f1524cf435b17b6fe988c")
SHARED_KEY = bytes.fromhex("9c87e48e69b33a613907515bcd5b1b4cc10bbaf15167b19804b00f0a9217e607")
HASHED_KEY = "a492906ccc809a411bb53a84572b57329375378c6ad7566f3e1c688200123e77"
IV = bytes.fromhex("717765636661617364616473")
MESSAGE = '{"id":1,"jsonrpc":"2.0","method":"test_method","params":{}}'
ENVELOPE = (
    "AHF3ZWNmYWFzZGFkc3paHoQ96/mLAdanVxi17icRXq+jyrqXA8ocVgGmryQZBFMg+uwgc8yLa43EOeY+IWEv84g8hn4L3Ncsgz6397sgNKnsNcL7"
    "A9k3Mg=="
)
SEED = bytes.fromhex("58e0254c211b858ef7896b00e3f36beeb13d568d47c6031c4218b87718061295")
DID = "did:key:z6MkodHZwneVRShtaLf8JKYkxpDGp1vGZnpGmdBpX8M2exxH"
CLAIMS: dict[str, Any] = {
    "iss": DID,
    "sub": "c479fe5dc464e771e78b193d239a65b58d278cad1c34bfb0b5716e5bb514928e",
    "aud": "wss://relay.walletconnect.com",
    "iat": 1656910097,
    "exp": 1656996497,
}
JWT = (
    "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJkaWQ6a2V5Ono2TWtvZEhad25lVlJTaHRhTGY4SktZa3hwREdwMXZHWm5wR21kQnBY"
    "OE0yZXh4SCIsInN1YiI6ImM0NzlmZTVkYzQ2NGU3NzFlNzhiMTkzZDIzOWE2NWI1OGQyNzhjYWQxYzM0YmZiMGI1NzE2ZTViYjUxNDkyOGUiLCJhdW"
    "QiOiJ3c3M6Ly9yZWxheS53YWxsZXRjb25uZWN0LmNvbSIsImlhdCI6MTY1NjkxMDA5NywiZXhwIjoxNjU2OTk2NDk3fQ.bAKl1swvwqqV_FgwvD4B"
    "x3Yp987B9gTpZctyBviA-EkAuWc8iI8SyokOjkv9GJESgid4U8Tf2foCgrQp2qrxBA"
)
TOPIC = "ab" * 32


@pytest.mark.parametrize(("private", "public"), [(PRIVATE_A, PUBLIC_B), (PRIVATE_B, PUBLIC_A)])
def test_both_sides_come_to_the_published_key(private: str, public: str) -> None:
    key = X25519PrivateKey.from_private_bytes(bytes.fromhex(private))
    assert wc_crypto.agree(key, bytes.fromhex(public)) == SYM_KEY


def test_topic_envelope_and_token_are_the_published_ones() -> None:
    assert wc_crypto.topic_of(SHARED_KEY) == HASHED_KEY
    assert wc_crypto.seal(SYM_KEY, MESSAGE, IV) == ENVELOPE
    assert wc_crypto.unseal(SYM_KEY, ENVELOPE) == json.loads(MESSAGE)
    key = Ed25519PrivateKey.from_private_bytes(SEED)
    assert wc_crypto.did_of(key.public_key().public_bytes_raw()) == DID
    assert wc_crypto.token(key, CLAIMS) == JWT


def test_what_was_sealed_with_another_key_does_not_open() -> None:
    with pytest.raises(Refused):
        wc_crypto.unseal(SHARED_KEY, ENVELOPE)


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[RelayTwin]:
    twin = RelayTwin(Clock())
    await twin.start()
    try:
        yield twin
    finally:
        await twin.stop()


def _address(relay: RelayTwin, key: Ed25519PrivateKey, project: str = PROJECT, **changed: Any) -> str:
    did = wc_crypto.did_of(key.public_key().public_bytes_raw())
    now = int(relay.clock())
    claims = {"act": "client_auth", "iss": did, "sub": "00", "aud": relay.url, "iat": now, "exp": now + 60}
    return f"{relay.url}/?auth={wc_crypto.token(key, claims | changed)}&projectId={project}"


async def _ask(line: ClientConnection, method: str, **params: Any) -> Any:
    await line.send(json.dumps({"id": str(time.time_ns()), "jsonrpc": "2.0", "method": method, "params": params}))
    return json.loads(await line.recv())["result"]


async def _publish(line: ClientConnection, message: str, ttl: int = 300) -> None:
    assert await _ask(line, "irn_publish", topic=TOPIC, message=message, ttl=ttl, tag=1100, prompt=True) is True


OTHERS_DID = wc_crypto.did_of(bytes(range(32)))


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("project", "changed", "reason"),
    [
        ("another", {}, "Project not found"),
        (PROJECT, {"aud": "wss://relay.walletconnect.org"}, "Invalid audience"),
        (PROJECT, {"exp": 1}, "JWT Token is expired"),
        (PROJECT, {"iss": OTHERS_DID}, "Invalid signature"),
        (PROJECT, {"act": "other"}, "Invalid action"),
    ],
)
async def test_a_stranger_is_told_why_by_a_close(project: str, changed: dict[str, Any], reason: str) -> None:
    async with running() as relay, connect(_address(relay, Ed25519PrivateKey.generate(), project, **changed)) as line:
        with pytest.raises(ConnectionClosed) as closed:
            await line.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (UNAUTHORIZED, reason)


@pytest.mark.asyncio
async def test_messages_wait_until_they_are_acknowledged_or_over() -> None:
    async with running() as relay:
        await _messages_wait(relay)


async def _messages_wait(relay: RelayTwin) -> None:
    wallet, page = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    async with connect(_address(relay, page)) as line:
        await _publish(line, "short", ttl=5)
        await _publish(line, "first")
        await _publish(line, "second")
        assert isinstance(relay.clock, Clock)
        relay.clock.now += 6
        await _ask(line, "irn_subscribe", topic=TOPIC)
    for acknowledge, expected in ((False, ["first", "second"]), (True, ["first", "second"]), (True, [])):
        async with connect(_address(relay, wallet)) as line:
            await _ask(line, "irn_subscribe", topic=TOPIC)
            heard = []
            for _ in expected:
                told = json.loads(await line.recv())
                heard.append(told["params"]["data"]["message"])
                assert told["id"] > 2**53
                if acknowledge:
                    await line.send(json.dumps({"id": told["id"], "jsonrpc": "2.0", "result": True}))
            # The next answer comes behind everything that was still to be told.
            await _ask(line, "irn_subscribe", topic=os.urandom(32).hex())
            assert heard == expected


@pytest.mark.asyncio
async def test_only_who_subscribed_is_told() -> None:
    async with (
        running() as relay,
        connect(_address(relay, Ed25519PrivateKey.generate())) as one,
        connect(_address(relay, Ed25519PrivateKey.generate())) as other,
    ):
        name = await _ask(one, "irn_subscribe", topic=TOPIC)
        await _publish(other, "heard")
        assert json.loads(await one.recv())["params"]["data"]["message"] == "heard"
        assert await _ask(one, "irn_unsubscribe", topic=TOPIC, id=name) is True
        await _publish(other, "unheard")
        await _ask(one, "irn_subscribe", topic="cd" * 32)
