# SPDX-License-Identifier: Apache-2.0
"""Positions in the stream of events, and which topics a reader wants."""

import re
from typing import NamedTuple

_SHAPE = re.compile(r"^(\d{1,20})-(\d{1,19})$")
XID_MAX = 2**64 - 1
ID_MAX = 2**63 - 1


class Cursor(NamedTuple):
    """The last event somebody has seen; written `xid-id`. Compares in the order of the stream."""

    xid: int
    id: int

    def __str__(self) -> str:
        return f"{self.xid}-{self.id}"


START = Cursor(0, 0)


def parse_cursor(text: str) -> Cursor | None:
    """None for what no cursor of ours looks like."""
    match = _SHAPE.match(text)
    if match is None:
        return None
    found = Cursor(int(match[1]), int(match[2]))
    return found if found.xid <= XID_MAX and found.id <= ID_MAX else None


def wants(topics: frozenset[str] | None, topic: str) -> bool:
    """A wanted topic that ends in `.` or `:` stands for all that start with it; None wants everything."""
    if topics is None or topic in topics:
        return True
    return any(wanted[-1:] in (".", ":") and topic.startswith(wanted) for wanted in topics)
