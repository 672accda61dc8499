# SPDX-License-Identifier: Apache-2.0
"""Who fits, what it costs, who is chosen, and what is said when nobody is."""

import dataclasses
from uuid import UUID, uuid5

import pytest

from qubix_coordinator.market import rules
from qubix_coordinator.market.rules import Candidate, Choice, Need, Obstacle, Shortfall
from qubix_protocol.messages import KernelRate
from qubix_protocol.states import Availability, Reason

GIB = 1024**3
NEED = Need(kernel="matmul", backends=("cpu",), flops=1e9, bytes_moved=1e6, memory_bytes=GIB, hold_left_qu=1_000)


def rate(flops_per_s: float = 1e9, backend: str = "cpu", kernel: str = "matmul") -> KernelRate:
    return KernelRate(kernel=kernel, backend=backend, flops_per_s=flops_per_s, bytes_per_s=1e9)


def candidate(name: str = "a", **changes: object) -> Candidate:
    plain = Candidate(
        listing_id=uuid5(UUID(int=0), name),
        peer_id=f"peer-{name}",
        device_id="cpu",
        model="CPU",
        memory_bytes=8 * GIB,
        backends=("cpu",),
        rate_qu_per_h=36_000,
        availability=Availability.AVAILABLE,
        rates=(rate(),),
        jobs_parallel=1,
        jobs_rejected=0,
        failures=0,
        backoff_until_ms=0,
        offer_digest=bytes(32),
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def chosen(candidates: list[Candidate], need: Need = NEED, running: dict[UUID, int] | None = None) -> str:
    found = rules.choose(candidates, need, running or {}, 0)
    assert isinstance(found, Choice), found
    return found.candidate.peer_id


def refused(candidates: list[Candidate], need: Need = NEED, running: dict[UUID, int] | None = None) -> Shortfall:
    found = rules.choose(candidates, need, running or {}, 0)
    assert isinstance(found, Shortfall)
    return found


def test_the_cheapest_total_wins_then_speed_then_reputation() -> None:
    dear_but_fast = candidate("fast", rate_qu_per_h=72_000, rates=(rate(8e9),))
    cheap_but_slow = candidate("slow")
    assert chosen([cheap_but_slow, dear_but_fast]) == "peer-fast"
    assert chosen([candidate("x", reliability=0.2), candidate("y", reliability=0.9)]) == "peer-y"
    assert chosen([candidate("x", failures=1), candidate("y")]) == "peer-y"
    # Both cost the 1 QU that anything costs: the faster one is better.
    free = [candidate("x", rate_qu_per_h=0), candidate("y", rate_qu_per_h=0, rates=(rate(2e9),))]
    assert chosen(free) == "peer-y"


def test_a_region_is_preferred_as_long_as_it_is_not_much_dearer() -> None:
    here, far = candidate("here", region="eu", rate_qu_per_h=41_000), candidate("far", region="us")
    wanted = dataclasses.replace(NEED, region="eu")
    assert chosen([here, far], wanted) == "peer-here"
    assert chosen([here, far]) == "peer-far"
    assert chosen([dataclasses.replace(here, rate_qu_per_h=48_000), far], wanted) == "peer-far"
    assert chosen([far], wanted) == "peer-far", "a wish, not a condition"


def test_a_provider_that_does_much_already_comes_after_its_equals() -> None:
    mine = [candidate("a"), candidate("b", peer_id="peer-a"), candidate("c")]
    for luck in (0.1, 0.5, 0.99):
        found = rules.choose(mine, NEED, {mine[0].listing_id: 1}, 0, luck)
        assert isinstance(found, Choice)
        assert found.candidate.peer_id == "peer-c"


def test_a_node_that_calls_itself_busy_comes_last_but_can_be_asked() -> None:
    busy = candidate("busy", availability=Availability.BUSY, rate_qu_per_h=1)
    assert chosen([busy]) == "peer-busy"
    assert chosen([busy, candidate("free")]) == "peer-free"


def test_occupancy_is_what_the_coordinator_knows() -> None:
    one = candidate(jobs_parallel=2)
    assert chosen([one], running={one.listing_id: 1}) == "peer-a"
    found = refused([one], running={one.listing_id: 2})
    assert found.waiting
    assert Obstacle.BUSY.value in found.detail


@pytest.mark.parametrize(
    ("changes", "need", "obstacle", "reason"),
    [
        ({"backends": ("cuda",)}, {}, Obstacle.BACKEND, Reason.NOBODY_FITS),
        ({"rates": ()}, {}, Obstacle.UNMEASURED, Reason.NOBODY_FITS),
        ({"rates": (rate(kernel="knn"),)}, {}, Obstacle.UNMEASURED, Reason.NOBODY_FITS),
        ({"memory_bytes": GIB - 1}, {}, Obstacle.MEMORY, Reason.NOBODY_FITS),
        ({}, {"rate_qu_per_h_max": 35_999}, Obstacle.RATE, Reason.TOO_DEAR),
        # 1 s at 10 QU/s is 10, forecast up to 12.5.
        ({}, {"hold_left_qu": 11}, Obstacle.CAP, Reason.TOO_DEAR),
        ({}, {"provider": "somebody"}, Obstacle.PROVIDER, Reason.NOBODY_FITS),
        ({}, {"excluded": frozenset({"peer-a"})}, Obstacle.EXCLUDED, Reason.NOBODY_FITS),
        ({"availability": Availability.DRAINING}, {}, Obstacle.AWAY, Reason.NOBODY_FITS),
        ({"backoff_until_ms": 1}, {}, Obstacle.BACKOFF, Reason.NOBODY_FITS),
    ],
)
def test_each_obstacle_is_named(
    changes: dict[str, object], need: dict[str, object], obstacle: Obstacle, reason: Reason
) -> None:
    wanted = dataclasses.replace(NEED, **need)  # type: ignore[arg-type]
    found = refused([candidate(**changes)], wanted)
    assert found.reason is reason
    assert f"1 {obstacle.value}" in found.detail


def test_an_empty_market_says_so() -> None:
    assert refused([]) == Shortfall(Reason.NOBODY_FITS, "no provider is in the market", waiting=False)


def test_an_exact_cap_is_enough() -> None:
    assert chosen([candidate()], dataclasses.replace(NEED, hold_left_qu=12)) == "peer-a"


def test_estimates_show_occupied_offers_too() -> None:
    found = rules.estimates([candidate("a", backoff_until_ms=99), candidate("b", memory_bytes=1)], NEED)
    assert [choice.candidate.peer_id for choice in found] == ["peer-a"]


def test_backoff_grows_to_a_bound() -> None:
    pauses = [rules.backoff_ms(n) for n in range(1, 40)]
    assert pauses == sorted(pauses)
    assert pauses[0] == rules.BACKOFF_FIRST_MS
    assert pauses[-1] == rules.BACKOFF_MAX_MS
