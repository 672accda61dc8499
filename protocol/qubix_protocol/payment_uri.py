# SPDX-License-Identifier: Apache-2.0
"""A payment as text, for a QR code or a link: `qubic:IDENTITY?amount=QU`. Who pays what to whom, and nothing secret.

A wallet that does not know the scheme is told the two values themselves: clients show them beside the code.
"""

import re
from dataclasses import dataclass
from typing import Final

from qubix_protocol.units import QU_MAX

SCHEME: Final = "qubic:"
_SHAPE: Final = re.compile(r"qubic:(?P<identity>[A-Z]{60})\?amount=(?P<amount>[1-9][0-9]{0,15})")


@dataclass(frozen=True, slots=True)
class Payment:
    """Exactly `amount_qu` to `identity`. The checksum of an identity is checked where its key is needed."""

    identity: str
    amount_qu: int

    def uri(self) -> str:
        """Raises ValueError for what no payment is."""
        text = f"{SCHEME}{self.identity}?amount={self.amount_qu}"
        if parse(text) != self:
            raise ValueError("this is no payment")
        return text


def parse(text: str) -> Payment:
    """Raises ValueError that says what is wrong; there is one spelling."""
    if not text.startswith(SCHEME):
        raise ValueError(f"a payment starts with {SCHEME!r}")
    found = _SHAPE.fullmatch(text)
    if found is None:
        raise ValueError("a payment is written qubic:IDENTITY?amount=QU, with 60 capital letters and a whole number")
    amount_qu = int(found["amount"])
    if amount_qu > QU_MAX:
        raise ValueError(f"{amount_qu} QU is more than any payment can carry ({QU_MAX})")
    return Payment(found["identity"], amount_qu)
