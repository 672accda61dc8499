# SPDX-License-Identifier: Apache-2.0
"""The text that a Qubic wallet signs to sign in, to be bound to an account, or to add or revoke a key of its orders.

Some wallets sign whatever they are given, and a payment is only bytes: the text is printable and is never the body of a
transaction. It has one spelling, so that what a person reads is what is signed, and what is signed is what was issued.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

TEXT_BYTES_MAX: Final = 1_000
DOMAIN_MAX: Final = 255
NONCE_BYTES: Final = 16
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"


class Purpose(StrEnum):
    SIGN_IN = "sign-in"
    BIND = "bind"
    ADD_ORDER_KEY = "add-order-key"
    REVOKE_ORDER_KEY = "revoke-order-key"

    @property
    def about_a_key(self) -> bool:
        return self in (Purpose.ADD_ORDER_KEY, Purpose.REVOKE_ORDER_KEY)


class Scheme(StrEnum):
    """What a wallet hashes before it signs.

    `raw`: the text's bytes (the browser extension's `signMessage`). `prefixed`: "Qubic Signed Message:\\n" before them
    (`qubic_sign` of WalletConnect).
    """

    RAW = "raw"
    PREFIXED = "prefixed"


_ASKS: Final = {
    Purpose.SIGN_IN: "Sign in to QUBIX with this wallet.",
    Purpose.BIND: "Bind this wallet to a QUBIX account: it will sign in to that account and receive its pay-outs.",
    Purpose.ADD_ORDER_KEY: "Let the order key below spend from a QUBIX account.",
    Purpose.REVOKE_ORDER_KEY: "Revoke the order key below: it will not spend from a QUBIX account any more.",
}
_OWN: Final = "the one of this wallet"
_HOST: Final = rf"[a-z0-9.:\[\]_-]{{1,{DOMAIN_MAX}}}"
_DOMAIN: Final = re.compile(_HOST)
_SHAPE: Final = re.compile(
    rf"(?P<domain>{_HOST}) asks for a signature of your Qubic wallet\.\n\n"
    r"[^\n]{1,120} This signature moves no QU\.\n\n"
    r"Network: (?P<network>[a-z]{1,20})\n"
    r"Identity: (?P<identity>[A-Z]{60})\n"
    r"Purpose: (?P<purpose>[a-z-]{1,20})\n"
    r"Account: (?P<account>[0-9a-z -]{1,36})\n"
    r"(?:Order key: (?P<order_key>[0-9a-f]{64})\n)?"
    r"Nonce: (?P<nonce>[0-9a-f]{32})\n"
    r"Issued: (?P<issued>[0-9TZ:-]{20})\n"
    r"Expires: (?P<expires>[0-9TZ:-]{20})"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChallengeText:
    """`account` is the account that this is about; "" at a sign-in. `order_key` is the key that is to be added or
    revoked, "" for other purposes. Times are whole seconds."""

    domain: str
    network: str
    identity: str
    purpose: Purpose
    nonce: str
    issued: datetime
    expires: datetime
    account: str = ""
    order_key: str = ""

    def text(self) -> str:
        return (
            f"{self.domain} asks for a signature of your Qubic wallet.\n\n"
            f"{_ASKS[self.purpose]} This signature moves no QU.\n\n"
            f"Network: {self.network}\n"
            f"Identity: {self.identity}\n"
            f"Purpose: {self.purpose.value}\n"
            f"Account: {self.account or _OWN}\n"
            f"{self._key_line()}"
            f"Nonce: {self.nonce}\n"
            f"Issued: {self.issued.astimezone(UTC).strftime(_TIME)}\n"
            f"Expires: {self.expires.astimezone(UTC).strftime(_TIME)}"
        )

    def _key_line(self) -> str:
        return f"Order key: {self.order_key}\n" if self.order_key else ""


def parse(text: str) -> ChallengeText:
    """Raises ValueError for a text that no challenge has, also when only its spelling differs."""
    found = _SHAPE.fullmatch(text)
    if found is None:
        raise ValueError("the text is not that of a challenge")
    said = found.groupdict()
    read = ChallengeText(
        domain=said["domain"],
        network=said["network"],
        identity=said["identity"],
        purpose=Purpose(said["purpose"]),
        nonce=said["nonce"],
        issued=_moment(said["issued"]),
        expires=_moment(said["expires"]),
        account="" if said["account"] == _OWN else said["account"],
        order_key=said["order_key"] or "",
    )
    if bool(read.order_key) is not read.purpose.about_a_key:
        raise ValueError("a key is named where none is meant, or none where one is")
    if read.text() != text:
        raise ValueError("the text is not spelt as a challenge is")
    return read


def is_domain(text: str) -> bool:
    """Whether it can stand in a challenge: a host in lower case, with its port where it has one."""
    return _DOMAIN.fullmatch(text) is not None


def _moment(text: str) -> datetime:
    return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
