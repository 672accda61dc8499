# SPDX-License-Identifier: Apache-2.0
"""A mobile wallet's twin: it scans a code, its owner agrees or not, and it answers over the relay. What it signs, and
its errors, are those of `WalletConnectWallet`; its cryptography is Python's, by the specification."""

import asyncio
import contextlib
import itertools
import json
import os
import time
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from websockets.asyncio.client import ClientConnection, connect

from tests.support.wallet_double import WalletConnectWallet, WalletError
from tests.support.wc_crypto import Refused, agree, did_of, parse_uri, seal, token, topic_of, unseal
from tests.support.wc_relay import PROJECT

CHAIN: Final = "qubic:devnet"
METHODS: Final = (
    "qubic_requestAccounts",
    "qubic_sendQubic",
    "qubic_signTransaction",
    "qubic_sendTransaction",
    "qubic_sign",
    "qubic_sendAsset",
)
USER_REJECTED: Final = {"code": 5000, "message": "User rejected."}
DAY_S: Final = 86_400


class Phone:
    """`agrees`: what its owner says to a connection. `answers = False`: it leaves every request lying."""

    def __init__(self, wallet: WalletConnectWallet, relay: str, *, chain: str = CHAIN, life_s: int = 7 * DAY_S) -> None:
        self.wallet, self.relay, self.chain, self.life_s = wallet, relay, chain, life_s
        self.agrees = self.answers = True
        self.session: tuple[str, bytes] | None = None
        self.asked: list[str] = []
        self.ended = asyncio.Event()
        self.acknowledged = asyncio.Event()
        self.proposals: list[dict[str, Any]] = []
        self._key = Ed25519PrivateKey.generate()
        self._keys: dict[str, bytes] = {}
        self._heard: set[str] = set()
        self._settled = 0
        self._ids = itertools.count(int(time.time() * 1_000_000))
        self._socket: ClientConnection | None = None
        self._listening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        now = int(time.time())
        public = self._key.public_key().public_bytes_raw()
        claims = {"act": "client_auth", "iss": did_of(public), "sub": os.urandom(32).hex(), "aud": self.relay}
        auth = token(self._key, claims | {"iat": now, "exp": now + DAY_S})
        self._socket = await connect(
            f"{self.relay}/?projectId={PROJECT}&auth={auth}", max_size=None, ping_interval=None
        )
        self._listening = asyncio.create_task(self._listen(self._socket))
        for topic in self._keys:
            await self._rpc("irn_subscribe", {"topic": topic})

    async def close(self) -> None:
        if self._listening and self._socket:
            # Whatever ended it before is what a test has to hear of.
            if not self._listening.done():
                self._listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listening
            await self._socket.close()

    async def scan(self, uri: str) -> None:
        topic, key, ends_s = parse_uri(uri)
        assert ends_s > time.time(), "the code is over"
        self._keys[topic] = key
        await self._rpc("irn_subscribe", {"topic": topic})

    async def disconnect(self) -> None:
        assert self.session is not None
        reason = {"code": 6000, "message": "User disconnected."}
        await self.say("wc_sessionDelete", reason, 1112, DAY_S)

    async def say(self, method: str, params: Any, tag: int, ttl: int = 300) -> int:
        """On the session's topic, whatever it is; its id."""
        assert self.session is not None
        number = next(self._ids)
        said = {"id": number, "jsonrpc": "2.0", "method": method, "params": params}
        await self._publish(*self.session, said, tag, ttl)
        return number

    async def _listen(self, socket: ClientConnection) -> None:
        async for frame in socket:
            told = json.loads(frame)
            if told.get("method") != "irn_subscription":
                continue
            await socket.send(json.dumps({"id": told["id"], "jsonrpc": "2.0", "result": True}))
            data = told["params"]["data"]
            if data["message"] not in self._heard:
                self._heard.add(data["message"])
                with contextlib.suppress(Refused):
                    await self._receive(data["topic"], unseal(self._keys[data["topic"]], data["message"]))

    async def _receive(self, topic: str, payload: dict[str, Any]) -> None:
        match payload.get("method"):
            case "wc_sessionPropose":
                await self._proposed(topic, payload["id"], payload["params"])
            case "wc_sessionRequest":
                await self._requested(topic, payload["id"], payload["params"])
            case "wc_sessionDelete" | "wc_pairingDelete":
                self.ended.set()
            case None if payload["id"] == self._settled and payload.get("result") is True:
                self.acknowledged.set()

    async def _proposed(self, topic: str, number: int, params: dict[str, Any]) -> None:
        self.proposals.append(params)
        answer = {"id": number, "jsonrpc": "2.0"}
        wanted = params["requiredNamespaces"]["qubic"]
        if not self.agrees or wanted["chains"] != [self.chain] or not set(wanted["methods"]) <= set(METHODS):
            await self._publish(topic, self._keys[topic], answer | {"error": USER_REJECTED}, 1120)
            return
        mine = X25519PrivateKey.generate()
        key = agree(mine, bytes.fromhex(params["proposer"]["publicKey"]))
        public = mine.public_key().public_bytes_raw().hex()
        session = topic_of(key)
        self._keys[session], self.session = key, (session, key)
        await self._rpc("irn_subscribe", {"topic": session})
        self._settled = await self.say("wc_sessionSettle", self._settlement(public), 1102)
        result = {"relay": {"protocol": "irn"}, "responderPublicKey": public}
        await self._publish(topic, self._keys[topic], answer | {"result": result}, 1101)

    def _settlement(self, public: str) -> dict[str, Any]:
        accounts = [f"{self.chain}:{identity}" for identity in self.wallet.accounts]
        metadata = {"name": "Qubic Wallet", "description": "", "url": "https://www.qubic.org", "icons": []}
        return {
            "relay": {"protocol": "irn"},
            "namespaces": {"qubic": {"accounts": accounts, "methods": list(METHODS), "events": []}},
            "controller": {"publicKey": public, "metadata": metadata},
            "expiry": int(time.time()) + self.life_s,
        }

    async def _requested(self, topic: str, number: int, params: dict[str, Any]) -> None:
        request = params["request"]
        self.asked.append(request["method"])
        if not self.answers and request["method"] != "qubic_requestAccounts":
            return
        answer: dict[str, Any] = {"id": number, "jsonrpc": "2.0"}
        try:
            answer["result"] = await self.wallet.request(request["method"], request["params"])
        except WalletError as refused:
            answer["error"] = {"code": refused.code, "message": refused.message}
        await self._publish(topic, self._keys[topic], answer, 1109)

    async def _publish(self, topic: str, key: bytes, payload: Any, tag: int, ttl: int = 300) -> None:
        message = {"topic": topic, "message": seal(key, payload), "ttl": ttl, "tag": tag, "prompt": False}
        await self._rpc("irn_publish", message)

    async def _rpc(self, method: str, params: Any) -> None:
        assert self._socket is not None
        number = str(time.time_ns())
        with contextlib.suppress(ConnectionError):
            await self._socket.send(json.dumps({"id": number, "jsonrpc": "2.0", "method": method, "params": params}))
