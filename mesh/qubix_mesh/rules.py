# SPDX-License-Identifier: Apache-2.0
"""Pure decisions of the mesh: waiting times, rates, frame lengths. Time and chance are arguments."""

from dataclasses import dataclass
from typing import Final

from qubix_mesh.errors import FrameTooLarge

HEADER_BYTES: Final = 4
LENGTH_MAX: Final = 2**32 - 1


def backoff_s(failures: int, chance: float, *, first_s: float = 0.25, max_s: float = 15.0) -> float:
    """How long to wait before the next try: doubled for each failure, then spread over 50–100 % by `chance` (0–1)."""
    doubled = first_s * 2.0 ** min(failures, 32)
    return min(doubled, max_s) * (0.5 + 0.5 * chance)


def frame_header(length: int) -> bytes:
    if length > LENGTH_MAX:
        raise FrameTooLarge(f"a frame of {length} bytes does not fit a length of 4 bytes")
    return length.to_bytes(HEADER_BYTES, "big")


def frame_length(header: bytes, limit_bytes: int) -> int:
    """The length a header claims; `FrameTooLarge` over the limit, before a byte of the body is read."""
    length = int.from_bytes(header, "big")
    if length > limit_bytes:
        raise FrameTooLarge(f"a frame of {length} bytes was announced, the limit is {limit_bytes}")
    return length


@dataclass(slots=True)
class TokenBucket:
    """Allows `rate_per_s` in the long run and `burst` at once."""

    rate_per_s: float
    burst: float
    tokens: float
    at_s: float

    @classmethod
    def full(cls, rate_per_s: float, burst: float, now_s: float) -> "TokenBucket":
        return cls(rate_per_s, burst, burst, now_s)

    def take(self, now_s: float, count: float = 1.0) -> bool:
        """Whether `count` may pass now; a refusal costs nothing."""
        self.tokens = min(self.burst, self.tokens + max(0.0, now_s - self.at_s) * self.rate_per_s)
        self.at_s = max(self.at_s, now_s)
        if self.tokens < count:
            return False
        self.tokens -= count
        return True

    def is_full(self, now_s: float) -> bool:
        return self.tokens + max(0.0, now_s - self.at_s) * self.rate_per_s >= self.burst


class Rates:
    """One token bucket for each name, for at most `names_max` names: full buckets are forgotten first."""

    def __init__(self, rate_per_s: float, burst: float, *, names_max: int) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._names_max = names_max
        self._buckets: dict[str, TokenBucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def allow(self, name: str, now_s: float, count: float = 1.0) -> bool:
        bucket = self._buckets.get(name)
        if bucket is None:
            if not self._make_room(now_s):
                return False
            bucket = self._buckets[name] = TokenBucket.full(self._rate_per_s, self._burst, now_s)
        return bucket.take(now_s, count)

    def _make_room(self, now_s: float) -> bool:
        """A crowd of names that are all busy gets no new ones: forgetting a busy name would lift its limit."""
        if len(self._buckets) >= self._names_max:
            self._buckets = {name: bucket for name, bucket in self._buckets.items() if not bucket.is_full(now_s)}
        return len(self._buckets) < self._names_max
