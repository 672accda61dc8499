# SPDX-License-Identifier: Apache-2.0
"""Signed requests serve once (trust D1): what was seen is remembered until it would have expired anyway."""

from typing import Final

from qubix_coordinator.errors import LimitExceeded
from qubix_protocol.errors import Expired, Replayed

LIFE_MS_MAX: Final = 65_000
"""Sixty seconds, and some for what the clocks' offset is wrong by."""
_KEPT_MAX: Final = 200_000


class SeenRequests:
    def __init__(self, kept_max: int = _KEPT_MAX) -> None:
        self._kept_max = kept_max
        self._expiry_ms: dict[tuple[bytes, int, int], int] = {}
        self._swept_ms = 0

    def use(self, sender: bytes, sequence: tuple[int, int], *, expires_ms: int, now_ms: int) -> None:
        """Raises Replayed for the second use, Expired for a life that is too long, LimitExceeded when full."""
        if expires_ms > now_ms + LIFE_MS_MAX:
            raise Expired(f"a signed request may live {LIFE_MS_MAX // 1000} s")
        if now_ms > self._swept_ms + LIFE_MS_MAX or len(self._expiry_ms) >= self._kept_max:
            self._expiry_ms = {key: until for key, until in self._expiry_ms.items() if until >= now_ms}
            self._swept_ms = now_ms
        if len(self._expiry_ms) >= self._kept_max:
            raise LimitExceeded("too many signed requests at once", remedy="Try again in a minute", retry_after_s=60)
        key = (sender, *sequence)
        if key in self._expiry_ms:
            raise Replayed("this signed request was used already")
        self._expiry_ms[key] = expires_ms
