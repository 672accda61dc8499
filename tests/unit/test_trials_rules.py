# SPDX-License-Identifier: Apache-2.0
"""Trials (trust C6): what each answer shows, what a listing may then call itself. Pure."""

import uuid
from dataclasses import replace

import pytest

from qubix_coordinator.market import observed
from qubix_coordinator.trials import rules
from qubix_coordinator.trials.rules import Aims, Claim, Evidence, Part, State, Verdict, Why
from qubix_kernels.trial import rules as pages
from qubix_protocol.messages import KernelRate
from qubix_protocol.states import DeviceKind

GIB = 1024**3
AIMS = Aims(fill_s=8.0, slack_ms=1_000, cpu_bytes_max=256 * 2**20)
DAY_MS = 86_400_000


def claim(model: str = "NVIDIA H100 80GB HBM3", gib: int = 80, flops: float = 3e13, number: int = 0) -> Claim:
    kind = DeviceKind.CPU if "CPU" in model else DeviceKind.CUDA
    return Claim(
        listing_id=uuid.UUID(int=number),
        device_id=f"device-{number}",
        kind=kind,
        model=model,
        driver="580.1",
        memory_bytes=gib * GIB,
        backend="cpu" if kind is DeviceKind.CPU else "cuda",
        flops=flops,
    )


def part(of: Claim | None = None, **shown: object) -> Part:
    made = of or claim()
    shape = rules.shape(made, AIMS)
    assert shape is not None
    return replace(Part(made, shape), **shown)  # type: ignore[arg-type]


def honest(of: Claim | None = None) -> Part:
    """As fast as it says, and held."""
    one = part(of)
    return replace(one, ready=True, fill_ms=round(rules.expected_ms(one)), proof_ms=300, right=True)


def at(flops: float, of: Claim) -> Part:
    """As fast as this, whatever it says, and held."""
    return replace(honest(of), fill_ms=round(pages.flops(part(of).shape) / flops * 1000))


def test_a_card_is_filled_to_nine_tenths_and_a_processor_to_the_bound_that_is_told() -> None:
    assert 0.899 * 80 * GIB < pages.fill_bytes(part().shape) <= 0.9 * 80 * GIB
    assert pages.fill_bytes(part(claim("A CPU", 64, 5e10)).shape) == AIMS.cpu_bytes_max
    assert 6_000 < rules.expected_ms(part()) < 10_000


def test_one_that_claims_to_be_too_slow_for_its_memory_is_not_tried() -> None:
    assert rules.shape(claim("GPU", flops=1e10), AIMS) is None


def test_the_fastest_measured_back_end_is_the_claim() -> None:
    def rate(backend: str, flops: float, kernel: str = "matmul") -> KernelRate:
        return KernelRate(kernel=kernel, backend=backend, flops_per_s=flops, bytes_per_s=1.0)

    found = [rate("cpu", 5.0), rate("cuda", 7.0), rate("cuda", 9.0, "knn"), rate("webgpu", 99.0)]
    assert rules.matmul_rate(found, ["cpu", "cuda"]) == ("cuda", 7.0)
    assert rules.matmul_rate(found[2:3], ["cuda"]) is None
    assert rules.matmul_rate([rate("cuda", 0.0)], ["cuda"]) is None


FAULTS: list[tuple[str, Part, Why | None]] = [
    ("an honest card", honest(), None),
    ("just in time", replace(honest(), fill_ms=rules.fill_ms_max(part(), 1_000)), None),
    ("a moment late", replace(honest(), fill_ms=rules.fill_ms_max(part(), 1_000) + 1), Why.TIME),
    ("a processor's speed", replace(honest(), fill_ms=4_000_000), Why.MODEL),
    ("a processor's speed by a name that nobody knows", replace(honest(claim("GPU")), fill_ms=4_000_000), Why.TIME),
    ("no such memory", part(problem="out_of_memory"), Why.MEMORY),
    ("made again, not held", replace(honest(), proof_ms=round(rules.expected_ms(part()))), Why.MEMORY),
    ("half of it made again", replace(honest(), proof_ms=round(rules.expected_ms(part()) / 2)), Why.MEMORY),
    ("held", replace(honest(), proof_ms=rules.proof_ms_max(part(), 1_000)), None),
    ("wrong words", replace(honest(), right=False), Why.WRONG),
    ("a back end that does not run", part(problem="kernel_error", detail="no CUDA device"), Why.BROKEN),
    ("a job came", part(problem="busy"), Why.BUSY),
    ("a small card by a great name", at(2e12, claim(flops=2e12, gib=8)), Why.MODEL),
    ("a small card by its own name", honest(claim("NVIDIA GTX 1660", 8, 2e12)), None),
    ("a processor may be slow", honest(claim("A CPU", 8, 1e10)), None),
]


@pytest.mark.parametrize(("one", "why"), [case[1:] for case in FAULTS], ids=[case[0] for case in FAULTS])
def test_what_a_device_shows_is_judged(one: Part, why: Why | None) -> None:
    found = rules.fault(one, 1_000)
    assert (found[0] if found else None) is why
    verdict = rules.judge([one], 1_000)
    if why is None:
        assert verdict.state is State.PASSED
    else:
        assert verdict.state is (State.VOID if why is Why.BUSY else State.FAILED)
        assert verdict.detail
    if verdict.state is State.FAILED:
        assert rules.REMEDIES[verdict.why]


def test_who_claims_less_than_its_model_does_has_no_time_to_make_half_of_it_again() -> None:
    """Measured on an H200: 3.1 TFLOP/s with transfers, as a node measures, and 31.5 of a trial's products. It told what
    it held in half a second."""
    modest = claim("NVIDIA H200", 140, 3.1e12)
    held = replace(at(31.5e12, modest), proof_ms=525)
    assert rules.judge([held], 1_000).state is State.PASSED
    assert held.fill_ms is not None
    half_again = replace(held, proof_ms=525 + held.fill_ms // 2)
    assert rules.judge([half_again], 1_000).why is Why.MEMORY


def test_one_card_for_twenty_is_found_by_time_and_fails_them_all() -> None:
    """The first is as fast as it says; the others wait for it."""
    parts = [honest(claim(number=number)) for number in range(20)]
    late = [replace(one, fill_ms=round((number + 1) * rules.expected_ms(one))) for number, one in enumerate(parts)]
    assert rules.judge(parts, 1_000).state is State.PASSED
    assert rules.judge(late, 1_000).why is Why.TIME
    assert rules.judge(late[:2], 1_000).state is State.PASSED, "what 2.5 times the claim allows is a slow day"


def test_a_device_that_nobody_looked_at_is_not_passed() -> None:
    assert rules.judge([honest(), replace(honest(), right=None)], 1_000).why is Why.WRONG


@pytest.mark.parametrize(
    ("state", "why"), [(State.ASKED, Why.SILENT), (State.FILLING, Why.TIME), (State.PROVING, Why.MEMORY)]
)
def test_silence_is_a_finding_of_the_step_in_which_it_falls(state: State, why: Why) -> None:
    verdict = rules.overdue([honest(), part(claim(number=1))], state)
    assert (verdict.state, verdict.why) == (State.FAILED, why)
    assert "device-1" in verdict.detail


def test_trials_that_come_to_nothing_again_and_again_are_a_finding() -> None:
    void, failed = Verdict(State.VOID, Why.BUSY), Verdict(State.FAILED, Why.TIME)
    assert [rules.with_voids(void, before).state for before in range(4)] == [State.VOID] * 2 + [State.FAILED] * 2
    assert rules.with_voids(failed, 0) is failed


@pytest.mark.parametrize("state", [State.ASKED, State.FILLING, State.PROVING, State.JUDGING])
def test_the_market_s_own_absence_is_no_finding_however_often(state: State) -> None:
    verdict = rules.overdue([part()], state, attended=state is State.JUDGING)
    assert (verdict.state, verdict.why) == (State.VOID, Why.AWAY)
    assert rules.with_voids(verdict, rules.VOIDS_MAX) is verdict


KNOWN = Evidence(
    selftest_passed=True,
    selftest_age_ms=DAY_MS,
    trial_passed=True,
    trial_age_ms=DAY_MS,
    same_claims=True,
    trial_gflops=100.0,
    observed_gflops=None,
)


@pytest.mark.parametrize(
    "changed",
    [
        {"selftest_passed": False},
        {"selftest_age_ms": None},
        {"selftest_age_ms": DAY_MS + 1},
        {"trial_passed": False},
        {"trial_age_ms": None},
        {"trial_age_ms": DAY_MS + 1},
        {"same_claims": False},
    ],
)
def test_verified_takes_both_of_them_young_and_about_what_is_offered(changed: dict[str, object]) -> None:
    assert rules.standing(KNOWN, DAY_MS) == rules.Standing(verified=True, score=100.0)
    assert rules.standing(replace(KNOWN, **changed), DAY_MS) == rules.Standing(verified=False, score=0.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(("observed_gflops", "score"), [(40.0, 40.0), (400.0, 100.0)])
def test_the_score_is_the_lesser_of_trial_and_jobs(observed_gflops: float, score: float) -> None:
    assert rules.standing(replace(KNOWN, observed_gflops=observed_gflops), DAY_MS).score == score


def test_what_jobs_show_is_what_three_of_four_reach() -> None:
    assert observed.lower_quartile([]) is None
    assert observed.lower_quartile([8.0, 1.0, 7.0, 9.0]) == 7.0
    assert observed.lower_quartile([9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]) == 3.0
    assert observed.countable(1e12, 1e9, 1_000) == pytest.approx(1_000.0)
    assert observed.countable(1e12, 1e9, 199) is None, "starting, not computing"
    assert observed.countable(1e12, 1e12, 1_000) is None, "moving, not computing"


def test_times_are_spread_by_chance() -> None:
    assert [rules.next_ms(1_000, 600, chance) for chance in (0.0, 0.5, 0.999)] == [1_300, 1_600, 1_899]


def test_the_list_of_peaks_knows_a_card_by_its_own_name_alone() -> None:
    assert rules.peak_gflops("NVIDIA GeForce RTX 4090") == 82_000
    assert rules.peak_gflops("NVIDIA L40S") == 90_000
    assert rules.peak_gflops("NVIDIA L4") == 30_000
    assert rules.peak_gflops("NVIDIA A10") == 31_000
    assert rules.peak_gflops("NVIDIA A100-SXM4-80GB") == 19_500
    assert rules.peak_gflops("A card of tomorrow") == 0.0
