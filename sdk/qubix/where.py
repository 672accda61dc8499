# SPDX-License-Identifier: Apache-2.0
"""`where=`: which devices a job may go to, by the market's own query line. What cannot be honoured is refused.

The coordinator asks the line anew whenever it deals the job out. A provider or a highest price that must hold by itself
is a term of the job besides.
"""

import math

import msgspec

from qubix import searching
from qubix.errors import BadUsage
from qubix_protocol.errors import Malformed
from qubix_protocol.keys import public_key_of
from qubix_protocol.messages import Peer
from qubix_protocol.query.nodes import Compare, Node, conjuncts
from qubix_protocol.units import RATE_QU_PER_H_MAX


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """`line` is empty where the terms say all of it."""

    line: str = ""
    provider: Peer | None = None
    rate_qu_per_h_max: int | None = None


def parse(text: str) -> Where:
    """Raises `BadUsage` that points at what is wrong."""
    line = text.strip()
    parts = conjuncts(searching.query(line, "where").root)
    found = Where()
    rest = [one for one in parts if not _is_term(one)]
    for one in parts:
        if isinstance(one, Compare) and _is_term(one):
            found = _with(found, one)
    return msgspec.structs.replace(found, line=line if rest else "")


def _is_term(one: Node) -> bool:
    if not isinstance(one, Compare):
        return False
    return (one.name, one.op) == ("provider", "=") or (one.name == "price" and one.op in ("<", "<="))


def _with(where: Where, one: Compare) -> Where:
    if one.name == "provider":
        named = provider(one.value.shown.strip("\"'"))
        if where.provider not in (None, named):
            raise BadUsage("where", "where: it names two providers", "Name one, or use `provider in [A, B]`")
        return msgspec.structs.replace(where, provider=named)
    assert not isinstance(one.value.value, str | tuple)
    limit = math.ceil(one.value.value) - 1 if one.op == "<" else math.floor(one.value.value)
    if limit < 0:
        raise BadUsage("where", "where: no price is below 0", "Use price<=QU_PER_HOUR")
    known = RATE_QU_PER_H_MAX if where.rate_qu_per_h_max is None else where.rate_qu_per_h_max
    return msgspec.structs.replace(where, rate_qu_per_h_max=min(known, limit))


def provider(peer: str) -> Peer:
    try:
        public_key_of(peer)
    except Malformed as error:
        raise BadUsage("provider", str(error), "Copy the provider's id from `qubix offers search`") from None
    return peer
