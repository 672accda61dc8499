# SPDX-License-Identifier: Apache-2.0
"""What watchers are sent, as the finished bytes of WebSocket frames (RFC 6455, 5.2): made once, written to many."""

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from qubix_coordinator.feed import rules
from qubix_coordinator.feed.rules import Difference, Shown
from qubix_coordinator.outbox.rules import Cursor

LISTINGS_MAX: Final = 200
"""In one frame; more of them come in several, of which the last carries the cursor."""
_TEXT: Final = 0x81
_SHORT: Final = 125
_ENCODER: Final = msgspec.json.Encoder()


def text(payload: bytes) -> bytes:
    """A whole message of UTF-8, unmasked as servers send it."""
    size = len(payload)
    if size <= _SHORT:
        return bytes((_TEXT, size)) + payload
    if size < 1 << 16:
        return struct.pack("!BBH", _TEXT, 126, size) + payload
    return struct.pack("!BBQ", _TEXT, 127, size) + payload


def event(topic: str, kind: str, cursor: Cursor | None, data: Any = None) -> bytes:
    told = {"topic": topic, "kind": kind, "cursor": str(cursor) if cursor is not None else "", "data": data}
    return text(_ENCODER.encode(told))


class Encodings:
    """Of listings at one moment: each is encoded once, however many queries want it."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms
        self._made: dict[str, msgspec.Raw] = {}

    def of(self, shown: Shown) -> msgspec.Raw:
        key = shown.view.listing_id
        if key not in self._made:
            self._made[key] = msgspec.Raw(_ENCODER.encode(rules.aged(shown, self._now_ms)))
        return self._made[key]


def delta(topic: str, cursor: Cursor, told: Difference, encodings: Encodings) -> list[bytes]:
    """At least one frame; an empty difference tells that nothing happened."""
    frames = list[bytes]()
    parts = list(_parts(told.listings)) or [()]
    for part in parts:
        last = part is parts[-1]
        data = {"listings": [encodings.of(one) for one in part], "gone": told.gone if last else ()}
        frames.append(event(topic, "delta", cursor if last else None, data))
    return frames


def snapshot(topic: str, cursor: Cursor, listings: Sequence[Shown], encodings: Encodings) -> list[bytes]:
    """`snapshot` begins the table anew, `more` adds to it; the last of them carries the cursor."""
    frames = list[bytes]()
    parts = list(_parts(listings)) or [()]
    for part in parts:
        kind = "more" if frames else "snapshot"
        data = [encodings.of(one) for one in part]
        frames.append(event(topic, kind, cursor if part is parts[-1] else None, data))
    return frames


def _parts(listings: Sequence[Shown]) -> Iterator[Sequence[Shown]]:
    for first in range(0, len(listings), LISTINGS_MAX):
        yield listings[first : first + LISTINGS_MAX]
