# SPDX-License-Identifier: Apache-2.0
"""`where=`: which providers a job may go to. What cannot be honoured is refused, never dropped."""

import re
from typing import Final

import msgspec

from qubix.errors import BadUsage
from qubix_protocol.errors import Malformed
from qubix_protocol.keys import public_key_of
from qubix_protocol.messages import Peer
from qubix_protocol.units import RATE_QU_PER_H_MAX

_TERM: Final = re.compile(
    r"\s*(?:and\s+)?([a-z_]+)\s*(<=|>=|<|>|!=|=|\s+in\s+)\s*(\[[^\]]*\]|[^\s]+)\s*", re.IGNORECASE
)
_REMEDY: Final = "Use provider=PEER_ID and price<=QU_PER_HOUR, separated by blanks"


class Where(msgspec.Struct, frozen=True, kw_only=True):
    provider: Peer | None = None
    rate_qu_per_h_max: int | None = None


def parse(text: str) -> Where:
    """`provider=12D3… price<=500`. Raises `BadUsage` naming the term that cannot be honoured."""
    found, at = Where(), 0
    while at < len(text) and text[at:].strip():
        term = _TERM.match(text, at)
        if term is None:
            raise _refused(text[at:].strip())
        found, at = _with(found, term[1].lower(), term[2].strip(), term[3], term[0].strip()), term.end()
    return found


def _with(where: Where, name: str, operator: str, value: str, term: str) -> Where:
    if (name, operator) == ("provider", "=") and where.provider is None:
        return msgspec.structs.replace(where, provider=provider(value))
    if name == "price" and operator in ("<", "<=") and value.replace("_", "").isdigit():
        limit = int(value.replace("_", "")) - (operator == "<")
        known = RATE_QU_PER_H_MAX if where.rate_qu_per_h_max is None else where.rate_qu_per_h_max
        return msgspec.structs.replace(where, rate_qu_per_h_max=min(known, limit))
    raise _refused(term)


def provider(peer: str) -> Peer:
    try:
        public_key_of(peer)
    except Malformed as error:
        raise BadUsage("provider", str(error), "Copy the provider's id from `qubix offers search`") from None
    return peer


def _refused(term: str) -> BadUsage:
    return BadUsage("where", f"where: {term!r} cannot be honoured", _REMEDY)
