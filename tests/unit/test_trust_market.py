# SPDX-License-Identifier: Apache-2.0
"""What a provider may say about itself, at its most absurd, must neither break the market nor raise a price."""

import math
import uuid

import pytest

from qubix_coordinator.jobs.billing import Chunk, billed_ms, charge_qu
from qubix_coordinator.market import forecast, rules
from qubix_coordinator.market.forecast import Work
from qubix_protocol import codec
from qubix_protocol.errors import Malformed
from qubix_protocol.messages import Beat, KernelRate
from qubix_protocol.states import Availability
from qubix_protocol.units import RATE_QU_PER_H_MAX

SMALLEST = (5e-324, 1e-310, 1e-297, 1e-290, 1e-200)


def rate(flops_per_s: float, bytes_per_s: float = 0.0) -> KernelRate:
    return KernelRate(kernel="matmul", backend="cpu", flops_per_s=flops_per_s, bytes_per_s=bytes_per_s)


@pytest.mark.parametrize("claim", SMALLEST)
@pytest.mark.parametrize("flops", [1.0, 1e9, 1e21, 1e30])
def test_a_rate_next_to_nothing_is_the_longest_run_and_never_an_error(claim: float, flops: float) -> None:
    """M2: one offer whose forecast overflows would otherwise stop the matching of everybody's jobs."""
    assert forecast.rated_ms(rate(claim), Work(flops, 1e9)) == forecast.RUN_MS_MAX
    assert forecast.rated_ms(rate(0.0, claim), Work(flops, flops)) == forecast.RUN_MS_MAX


def test_an_absurd_offer_costs_no_other_offer_its_job() -> None:
    def candidate(claim: float, rate_qu_per_h: int) -> rules.Candidate:
        return rules.Candidate(
            listing_id=uuid.uuid4(),
            peer_id=f"peer {claim}",
            device_id="cpu-1",
            model="A CPU",
            memory_bytes=2**40,
            backends=("cpu",),
            rate_qu_per_h=rate_qu_per_h,
            availability=Availability.AVAILABLE,
            rates=(rate(claim),),
            jobs_parallel=1,
            jobs_rejected=0,
            failures=0,
            backoff_until_ms=0,
            offer_digest=bytes(32),
        )

    need = rules.Need("matmul", ("cpu",), 1e9, 1e6, 1000, hold_left_qu=1_000_000)
    absurd = [candidate(claim, RATE_QU_PER_H_MAX) for claim in SMALLEST]
    honest = candidate(1e9, 1000)
    found = rules.choose([*absurd, honest], need, {}, 0)
    assert isinstance(found, rules.Choice)
    assert found.candidate == honest
    assert rules.estimates([*absurd, honest], need)[0].candidate == honest


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, -1.0, 1.0 + 1e-9])
def test_a_fraction_that_is_none_is_refused_on_the_wire(wrong: float) -> None:
    plain = {"attempt_id": str(uuid.uuid4()), "fence": 1, "fraction": wrong, "elapsed_ms": 0}
    with pytest.raises(Malformed, match="fraction"):
        codec.convert(plain, Beat)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, -1.0])
def test_a_rate_that_is_no_number_is_refused_on_the_wire(wrong: float) -> None:
    with pytest.raises(Malformed, match="flops_per_s"):
        codec.convert({"kernel": "matmul", "backend": "cpu", "flops_per_s": wrong, "bytes_per_s": 1.0}, KernelRate)


@pytest.mark.parametrize("claimed_ms", [0, 1, 2**53])
@pytest.mark.parametrize("observed_ms", [0, 1, 2**53])
def test_no_claim_bills_more_than_a_quarter_above_the_frozen_forecast(claimed_ms: int, observed_ms: int) -> None:
    """M2, whatever is claimed for which chunk."""
    chunks = [Chunk(25, claimed_ms, observed_ms), Chunk(25, 2**53, 2**53)]
    billed = billed_ms(chunks, forecast_ms=10_000, attempt_units=100)
    assert billed <= 6_250
    assert charge_qu(RATE_QU_PER_H_MAX, billed, units=50, hold_left_qu=7) == 7
