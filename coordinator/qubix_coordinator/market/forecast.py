# SPDX-License-Identifier: Apache-2.0
"""How long a job will take on a device, and what it will cost there. Pure."""

import math
from dataclasses import dataclass
from typing import Final

from qubix_coordinator.ledger.rules import owed_qu
from qubix_protocol.messages import KernelRate

FORECAST_LOW: Final = 0.8
FORECAST_HIGH: Final = 1.25
RUN_MS_MAX: Final = 30 * 86_400_000


@dataclass(frozen=True, slots=True)
class Forecast:
    """Milliseconds and QU; the band is what the bill may vary within."""

    run_ms: int
    cost_low_qu: int
    cost_qu: int
    cost_high_qu: int


def run_ms(rate: KernelRate, flops: float, bytes_moved: float) -> int | None:
    """Roofline: the slower of computing and moving. None when the device measured neither."""
    times = []
    if rate.flops_per_s > 0:
        times.append(flops / rate.flops_per_s)
    if rate.bytes_per_s > 0:
        times.append(bytes_moved / rate.bytes_per_s)
    if not times:
        return None
    # Bounded before it is made an integer: a node may claim to be so slow that the time is no finite number.
    return max(1, math.ceil(min(max(times) * 1000, RUN_MS_MAX)))


def forecast(rate: KernelRate, flops: float, bytes_moved: float, rate_qu_per_h: int) -> Forecast | None:
    """None when the device has measured nothing to forecast by."""
    run = run_ms(rate, flops, bytes_moved)
    if run is None:
        return None
    return Forecast(
        run_ms=run,
        cost_low_qu=max(1, owed_qu(rate_qu_per_h, math.floor(run * FORECAST_LOW))),
        cost_qu=max(1, owed_qu(rate_qu_per_h, run)),
        cost_high_qu=max(1, owed_qu(rate_qu_per_h, math.ceil(run * FORECAST_HIGH))),
    )
