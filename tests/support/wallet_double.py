# SPDX-License-Identifier: Apache-2.0
"""Twins of the two wallets that people sign with: the browser extension's `window.qubic`, and one behind WalletConnect.

They answer as the real ones do, in their encodings (hex there, base64 here), and like them they sign whatever they are
given: nothing here protects a server from asking for the wrong thing. What their user would click is `answer`.
"""

import base64
import string
from collections.abc import Mapping
from typing import Any, Final, Protocol

import httpx

from qubix_chain import crypto, identity
from qubix_chain.k12 import k12
from qubix_chain.messages import PREFIX
from qubix_chain.transaction import Transaction

EXTENSION_OFFSET_TICKS: Final = 10
MOBILE_OFFSET_TICKS: Final = 5
WALLETCONNECT_CHAIN: Final = "qubic:mainnet"
NETWORK_S: Final = 60
"""A devnet beside other tests may take its time."""


class WalletNetwork(Protocol):
    """What a wallet knows of the network."""

    async def tick(self) -> int: ...
    async def balance(self, of: str) -> int: ...
    async def broadcast(self, raw: bytes) -> None: ...


class RecordedNetwork:
    """No network: a tick and balances that the test sets, and what was broadcast."""

    def __init__(self, tick: int = 1_000, balances: Mapping[str, int] | None = None) -> None:
        self.now, self.balances = tick, dict(balances or {})
        self.broadcasts: list[bytes] = []

    async def tick(self) -> int:
        return self.now

    async def balance(self, of: str) -> int:
        return self.balances.get(of, 0)

    async def broadcast(self, raw: bytes) -> None:
        self.broadcasts.append(raw)


class HttpNetwork:
    """A network by its own API: the devnet, in tests."""

    def __init__(self, base_url: str) -> None:
        self._url = base_url.rstrip("/") + "/live/v1"

    async def tick(self) -> int:
        return int((await self._get("tick-info"))["tickInfo"]["tick"])

    async def balance(self, of: str) -> int:
        return int((await self._get(f"balances/{of}"))["balance"]["balance"])

    async def broadcast(self, raw: bytes) -> None:
        async with httpx.AsyncClient(timeout=NETWORK_S) as http:
            body = {"encodedTransaction": base64.b64encode(raw).decode()}
            (await http.post(f"{self._url}/broadcast-transaction", json=body)).raise_for_status()

    async def _get(self, path: str) -> dict[str, Any]:
        async with httpx.AsyncClient(timeout=NETWORK_S) as http:
            answer = (await http.get(f"{self._url}/{path}")).raise_for_status()
        body: dict[str, Any] = answer.json()
        return body


class WalletError(Exception):
    """What the page gets in place of an answer: `code` is a word from the extension, a number from WalletConnect."""

    def __init__(self, code: str | int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


class Account:
    """A seed in a wallet."""

    def __init__(self, seed: str, name: str = "Main") -> None:
        self.seed, self.name = seed, name
        self.subseed = crypto.subseed(seed)
        self.public_key = crypto.public_key_of(seed)
        self.identity = identity.encode(self.public_key)

    def sign(self, digest: bytes) -> bytes:
        return crypto.sign(self.subseed, self.public_key, digest)


class ExtensionWallet:
    """`window.qubic`. `answer = False` rejects what is asked next, and all that follows."""

    isQubic: Final = True  # noqa: N815, named by the extension

    def __init__(self, seed: str, network: WalletNetwork | None = None, origin: str = "http://localhost") -> None:
        self.account, self.network = Account(seed), network or RecordedNetwork()
        self.origin, self.connected, self.answer = origin, False, True

    async def connect(self) -> dict[str, Any]:
        self._asked_of_the_user()
        self.connected = True
        return {"connected": True, "origin": self.origin}

    async def disconnect(self) -> dict[str, Any]:
        self.connected = False
        return {"disconnected": True}

    async def getAccount(self) -> dict[str, Any] | None:  # noqa: N802, named by the extension
        return {"identity": self.account.identity, "name": self.account.name} if self.connected else None

    async def signMessage(self, params: str | Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        """Signs K12 of the bare text, without a prefix; a text of `0x` and hex digits as the bytes that they write."""
        self._connected_and_agreed()
        message = params if isinstance(params, str) else params.get("message")
        if not isinstance(message, str) or not message:
            raise WalletError("INVALID_PARAMS", "message is required")
        digest = k12(_bytes_of(message))
        return {"signatureHex": self.account.sign(digest).hex(), "digestHex": digest.hex()}

    async def signTransaction(self, params: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        """Signs only: broadcasting is the page's."""
        self._connected_and_agreed()
        return _as_the_extension_tells_it(await self._signed(params))

    async def sendTransaction(self, params: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        self._connected_and_agreed()
        signed = await self._signed(params)
        await self.network.broadcast(signed.to_bytes())
        return _as_the_extension_tells_it(signed)

    async def _signed(self, params: Mapping[str, Any]) -> Transaction:
        offset = params.get("targetTickOffset", EXTENSION_OFFSET_TICKS)
        try:
            return Transaction.build(
                source=self.account.public_key,
                destination=identity.decode(params["toIdentity"]),
                amount=int(params["amount"]),
                tick=params.get("targetTick") or await self.network.tick() + offset,
                input_type=params.get("inputType", 0),
                payload=_payload(params.get("inputBytes", b"")),
            ).sign(self.account.subseed)
        except (KeyError, TypeError, ValueError) as reason:
            raise WalletError("INVALID_PARAMS", str(reason)) from reason

    def _connected_and_agreed(self) -> None:
        if not self.connected:
            raise WalletError("NOT_CONNECTED", "connect first")
        self._asked_of_the_user()

    def _asked_of_the_user(self) -> None:
        if not self.answer:
            raise WalletError("USER_REJECTED", "the user rejected the request")


class WalletConnectWallet:
    """A mobile wallet behind a WalletConnect session. `answer` is what its user does: True, False, or "busy"."""

    chain: Final = WALLETCONNECT_CHAIN

    def __init__(self, *seeds: str, network: WalletNetwork | None = None) -> None:
        self.accounts = {account.identity: account for account in map(Account, seeds)}
        self.network = network or RecordedNetwork()
        self.answer: bool | str = True

    async def request(self, method: str, params: Mapping[str, Any] | None = None) -> Any:
        """The result of a JSON-RPC request; raises `WalletError` with its code."""
        handlers = {
            "qubic_requestAccounts": self._request_accounts,
            "qubic_sign": self._sign,
            "qubic_sendQubic": self._send_qubic,
            "qubic_sendTransaction": self._send_transaction,
            "qubic_signTransaction": self._sign_transaction,
        }
        if method not in handlers:
            raise WalletError(-32601, "Method not found")
        if self.answer == "busy":
            raise WalletError(-32001, "User is unavailable")
        if not self.answer:
            raise WalletError(5000, "User rejected.")
        try:
            return await handlers[method](params or {})
        except (KeyError, TypeError, ValueError) as reason:
            raise WalletError(-32602, "Invalid argument(s)") from reason

    async def _request_accounts(self, _: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [
            {"address": account.identity, "name": account.name, "amount": await self.network.balance(account.identity)}
            | {"assets": []}
            for account in self.accounts.values()
        ]

    async def _sign(self, params: Mapping[str, Any]) -> dict[str, Any]:
        data = PREFIX + _text(params["message"]).encode()
        digest = k12(data)
        signature = self.accounts[params["from"]].sign(digest)
        return {"signedData": _base64(data + signature), "digest": _base64(digest), "signature": _base64(signature)}

    async def _send_qubic(self, params: Mapping[str, Any]) -> dict[str, Any]:
        if params["amount"] <= 0:
            raise ValueError("amount must be positive")
        return await self._send_transaction({name: params[name] for name in ("from", "to", "amount")})

    async def _send_transaction(self, params: Mapping[str, Any]) -> dict[str, Any]:
        signed = await self._signed(params)
        await self.network.broadcast(signed.to_bytes())
        return {"transactionId": signed.id, "tick": signed.tick}

    async def _sign_transaction(self, params: Mapping[str, Any]) -> dict[str, Any]:
        signed = await self._signed(params)
        return {"signedTransaction": _base64(signed.to_bytes()), "transactionId": signed.id, "tick": signed.tick}

    async def _signed(self, params: Mapping[str, Any]) -> Transaction:
        account, now = self.accounts[params["from"]], await self.network.tick()
        tick = params.get("tick", now + MOBILE_OFFSET_TICKS)
        if tick <= now:
            raise WalletError(-32002, "Tick expired")
        return Transaction.build(
            source=account.public_key,
            destination=identity.decode(params["to"]),
            amount=params["amount"],
            tick=tick,
            input_type=params.get("inputType", 0),
            payload=base64.b64decode(params.get("payload", ""), validate=True),
        ).sign(account.subseed)


def _as_the_extension_tells_it(signed: Transaction) -> dict[str, Any]:
    raw = signed.to_bytes()
    return {
        "txId": signed.id,
        "targetTick": signed.tick,
        "txBytesBase64": _base64(raw),
        "txBytesHex": raw.hex(),
    }


def _bytes_of(message: str) -> bytes:
    digits = message.removeprefix("0x")
    hexadecimal = digits != message and len(digits) % 2 == 0 and set(digits) <= set(string.hexdigits)
    return bytes.fromhex(digits) if hexadecimal else message.encode()


def _payload(given: bytes | list[int] | str) -> bytes:
    if not isinstance(given, str):
        return bytes(given)
    return bytes.fromhex(given) if set(given) <= set(string.hexdigits) else base64.b64decode(given, validate=True)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text")
    return value


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
