# SPDX-License-Identifier: Apache-2.0
"""What accepted work costs. Pure; amounts are integer QU (trust.md M1, M2).

It stands here, and not beside the ledger, so that whoever holds a receipt can do the sum again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

MS_PER_HOUR: Final = 3_600_000
BPS: Final = 10_000
FORECAST_NUMERATOR: Final = 5
FORECAST_DENOMINATOR: Final = 4


class Split(NamedTuple):
    paid_qu: int
    fee_qu: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """An accepted link. `observed_ms` counts from the attempt's acceptance to this link."""

    units: int
    claimed_ms: int
    observed_ms: int


def owed_qu(rate_qu_per_h: int, billed_ms: int, *, accepted_chunks: int = 1) -> int:
    """Floored once, from the cumulative time; at least 1 QU where a chunk was accepted (M1)."""
    if rate_qu_per_h < 0 or billed_ms < 0:
        raise ValueError("rates and times are not negative")
    return max(rate_qu_per_h * billed_ms // MS_PER_HOUR, 1 if accepted_chunks > 0 else 0)


def split_fee(owed: int, fee_bps: int) -> Split:
    """The fee is floored and comes out of what is owed."""
    if owed < 0 or not 0 <= fee_bps <= BPS:
        raise ValueError("an amount is not negative and a fee is 0 to 10,000 basis points")
    fee = owed * fee_bps // BPS
    return Split(owed - fee, fee)


def billed_ms(chunks: Sequence[Chunk], *, forecast_ms: int, attempt_units: int) -> int:
    """Cumulative over an attempt's first `len(chunks)` links: it never falls as links are added."""
    if not chunks:
        return 0
    claimed = sum(chunk.claimed_ms for chunk in chunks)
    observed = max(chunk.observed_ms for chunk in chunks)
    units = sum(chunk.units for chunk in chunks)
    bound = forecast_ms * FORECAST_NUMERATOR * units // (FORECAST_DENOMINATOR * attempt_units)
    return min(claimed, observed, bound)


def charge_qu(rate_qu_per_h: int, billed: int, *, units: int, hold_left_qu: int) -> int:
    """What the accepted chunks cost together, fee included: at least 1 QU, never more than the hold has."""
    if units == 0:
        return 0
    return min(max(1, owed_qu(rate_qu_per_h, billed)), hold_left_qu)
