# SPDX-License-Identifier: Apache-2.0
"""What a token looks like and what it opens. Pure: the random bytes are an argument."""

import base64
import hashlib
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID, uuid5

TOKEN_PREFIX = "qx_"  # noqa: S105 - the visible start of every token, so that scanners can find a leaked one
TOKEN_BYTES = 32
KEY_BYTES = 32
KEY_ACCOUNTS = UUID("0f1f7a4e-4b0c-5f3e-8a55-6b8ed5c6a001")


class Scope(StrEnum):
    USER = "user"
    READ = "read"
    """What `user` may look at, and nothing that changes anything."""
    OPERATOR = "operator"
    GATEWAY = "gateway"
    ARBITER = "arbiter"


class Purpose(StrEnum):
    ORDER = "order"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who proved who they are."""

    account_id: UUID
    scopes: frozenset[Scope]
    token_id: UUID | None = None
    """Of the token that was shown."""

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes


def grantable(held: frozenset[Scope]) -> frozenset[Scope]:
    """What somebody may put into a token of their account: no more than they have."""
    return held | {Scope.READ} if Scope.USER in held else held


def token_of(random_bytes: bytes) -> str:
    """256 random bits as `qx_` and 43 characters of URL-safe base64."""
    if len(random_bytes) != TOKEN_BYTES:
        raise ValueError("a token is made of 32 random bytes")
    return TOKEN_PREFIX + base64.urlsafe_b64encode(random_bytes).decode().rstrip("=")


def digest_of_token(token: str) -> bytes:
    """What is stored: a token has 256 random bits, so one SHA-256 cannot be searched back."""
    return hashlib.sha256(token.encode()).digest()


def looks_like_token(token: str) -> bool:
    return token.startswith(TOKEN_PREFIX) and len(token) == len(TOKEN_PREFIX) + 43 and token.isascii()


def account_id_of_key(public_key: bytes) -> UUID:
    """The account that a key's first signed request creates: the same however often it is asked for."""
    return uuid5(KEY_ACCOUNTS, public_key.hex())
