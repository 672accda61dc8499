# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with the network's API, by what the caller does about it.

ChainError
├── Unreachable        try again later: no answer, 429, 5xx, zero peers, a time limit
├── NotYetProcessed    the archive has not come to that tick; wait until it has
├── SkippedTick        that tick was never made (an epoch's jump); `next_tick` is the next one there is
├── RefusedByNetwork   the request can never be granted as it stands, such as a target tick that is over
└── Untrusted          the answer is not what it claims to be: never act on it
    ├── Malformed      not the documented form, or too large
    └── Disagreement   two sources that must agree do not
"""


class ChainError(Exception):
    """`str()` is one sentence for people."""


class Unreachable(ChainError):
    """`retry_after_s` is what the server asked for, where it did."""

    def __init__(self, problem: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(problem)
        self.retry_after_s = retry_after_s


class NotYetProcessed(ChainError):
    def __init__(self, tick: int, last_processed: int) -> None:
        super().__init__(f"the archive is at tick {last_processed}, before tick {tick}")
        self.tick = tick
        self.last_processed = last_processed


class SkippedTick(ChainError):
    def __init__(self, tick: int, next_tick: int) -> None:
        super().__init__(f"tick {tick} was skipped; the next one is {next_tick}")
        self.tick = tick
        self.next_tick = next_tick


class RefusedByNetwork(ChainError):
    pass


class Untrusted(ChainError):
    pass


class Malformed(Untrusted):
    pass


class Disagreement(Untrusted):
    pass
