# SPDX-License-Identifier: Apache-2.0
"""WalletConnect v2's envelopes, keys and tokens by `cryptography`, from the specification alone: neither side of a test
is held to the other's code. Its own test holds it to the published vectors."""

import base64
import hashlib
import json
import os
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_IV: Final = 12
_ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_MULTICODEC: Final = bytes.fromhex("ed01")
_DID: Final = "did:key:z"
LEEWAY_S: Final = 120


class Refused(Exception):
    """Its text says why."""


def seal(key: bytes, payload: Any, iv: bytes | None = None) -> str:
    nonce = os.urandom(_IV) if iv is None else iv
    text = payload if isinstance(payload, str) else json.dumps(payload)
    return base64.b64encode(b"\x00" + nonce + ChaCha20Poly1305(key).encrypt(nonce, text.encode(), None)).decode()


def unseal(key: bytes, message: str) -> Any:
    """Raises Refused."""
    try:
        data = base64.b64decode(message, validate=True)
        if data[:1] != b"\x00":
            raise Refused("no envelope of type 0")
        return json.loads(ChaCha20Poly1305(key).decrypt(data[1 : 1 + _IV], data[1 + _IV :], None))
    except (ValueError, InvalidTag) as reason:
        raise Refused("not sealed with this key") from reason


def topic_of(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()


def agree(private: X25519PrivateKey, peer_public: bytes) -> bytes:
    shared = private.exchange(X25519PublicKey.from_public_bytes(peer_public))
    return HKDF(hashes.SHA256(), 32, salt=None, info=b"").derive(shared)


def parse_uri(uri: str) -> tuple[str, bytes, int]:
    """Topic, key and end of a pairing, strictly. Raises Refused."""
    scheme, rest = uri.split(":", 1)
    head, _, query = rest.partition("?")
    topic, _, version = head.partition("@")
    given = {name: values[0] for name, values in parse_qs(query, strict_parsing=True).items()}
    if scheme != "wc" or version != "2" or len(topic) != 64 or given.get("relay-protocol") != "irn":
        raise Refused("no address of a pairing")
    return topic, bytes.fromhex(given["symKey"]), int(given["expiryTimestamp"])


def did_of(public: bytes) -> str:
    number, text = int.from_bytes(_MULTICODEC + public, "big"), ""
    while number:
        number, rest = divmod(number, 58)
        text = _ALPHABET[rest] + text
    return _DID + text


def public_of(did: str) -> bytes:
    """Raises Refused."""
    number = 0
    if not did.startswith(_DID):
        raise Refused("Invalid issuer")
    for letter in did.removeprefix(_DID):
        number = number * 58 + _ALPHABET.index(letter)
    data = number.to_bytes(34, "big")
    if data[:2] != _MULTICODEC:
        raise Refused("Invalid issuer")
    return data[2:]


def token(key: Ed25519PrivateKey, claims: dict[str, Any]) -> str:
    head = ".".join(_url64(_compact(part)) for part in ({"alg": "EdDSA", "typ": "JWT"}, claims))
    return f"{head}.{_url64(key.sign(head.encode()))}"


def check_token(jwt: str, audience: str, now_s: float) -> str:
    """Who it is that connects, as the relay judges it. Raises Refused."""
    try:
        head, claims, signature = (base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in jwt.split("."))
        header, told = json.loads(head), json.loads(claims)
    except ValueError as reason:
        raise Refused("Invalid format") from reason
    if header != {"alg": "EdDSA", "typ": "JWT"}:
        raise Refused("Invalid JWT signing algorithm")
    if told.get("aud") != audience:
        raise Refused("Invalid audience")
    if told.get("act") != "client_auth":
        raise Refused("Invalid action")
    if not told["iat"] - LEEWAY_S <= now_s < told["exp"]:
        raise Refused("JWT Token is expired")
    try:
        Ed25519PublicKey.from_public_bytes(public_of(told["iss"])).verify(signature, jwt.rpartition(".")[0].encode())
    except InvalidSignature as reason:
        raise Refused("Invalid signature") from reason
    return str(told["iss"])


def query_of(path: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}


def _compact(part: Any) -> bytes:
    return json.dumps(part, separators=(",", ":")).encode()


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
