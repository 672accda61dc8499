# SPDX-License-Identifier: Apache-2.0
"""The node's own clocks. Deadlines run on `steady_ms`; `wall_ms` is only ever told to others."""

import time


def wall_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def steady_ms() -> int:
    """Milliseconds that never run backwards, from an arbitrary start."""
    return time.monotonic_ns() // 1_000_000
