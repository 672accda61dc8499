# SPDX-License-Identifier: Apache-2.0
"""The columns of offers, jobs and attempts: the same order in every face of QUBIX. Pure."""

from collections.abc import Callable
from typing import Final

from qubix.cli import shown
from qubix_protocol.api import AttemptView, JobView, ListingView
from qubix_protocol.selftest import SelfTestView, summary

OFFER_COLUMNS: Final = (
    "model",
    "memory",
    "QU/h",
    "checked work",
    "verified",
    "region",
    "driver / CUDA",
    "back ends",
    "availability",
    "use",
    "provider",
)
OFFER_RIGHT: Final = frozenset({"memory", "QU/h", "use"})
OFFER_SPARE: Final = ("driver / CUDA", "back ends", "verified", "region", "use", "memory")
"""What a narrow terminal can do without, the first first."""
SHORTEN: Final[dict[str, Callable[[str], str]]] = {"provider": shown.peer, "model": shown.short_model}
JOB_COLUMNS: Final = ("job", "kernel", "state", "why", "done", "cap", "held", "paid + fee", "returned", "created")
JOB_RIGHT: Final = frozenset({"done", "cap", "held", "paid + fee", "returned"})
JOB_SPARE: Final = ("why", "held", "created", "returned", "cap")
ATTEMPT_COLUMNS: Final = (
    "attempt",
    "provider",
    "device",
    "state",
    "why",
    "units",
    "run",
    "billed",
    "check",
    "verdict",
    "paid",
    "fee",
)
ATTEMPT_RIGHT: Final = frozenset({"units", "run", "billed", "check", "paid", "fee"})
ATTEMPT_SPARE: Final = ("verdict", "why")


def offer(one: ListingView) -> list[str]:
    return [
        one.title,
        shown.memory(one.memory_bytes),
        shown.qu(one.rate_qu_per_h),
        shown.record(one),
        "yes" if one.verified else "no",
        one.region,
        shown.driver(one),
        ", ".join(one.backends),
        str(one.availability),
        shown.utilisation(one),
        one.provider,
    ]


def offer_pairs(one: ListingView) -> list[tuple[str, str]]:
    """Everything about a device that is not a reading."""
    return [
        ("device", one.device_id),
        ("listing", one.listing_id),
        *zip(OFFER_COLUMNS, offer(one), strict=True),
        ("cores", f"{one.cores:,}" if one.cores else ""),
        ("compute capability", one.compute_capability),
        ("jobs run in", shown.isolation(one)),
    ]


def selftest_pairs(one: SelfTestView) -> list[tuple[str, str]]:
    """What is known of the device's fitness; the self-test is its node's word, `score` the market's."""
    score = f"{one.score:,.0f} GFLOP/s of float32 matmul" if one.score else "none yet"
    if one.at_ms is None or one.age_ms is None:
        return [("score", score), ("self-test", "none yet")]
    outcome = ("passed" if one.passed else "failed") + (" (quick)" if one.quick else "")
    return [("score", score), ("self-test", f"{outcome} {shown.moment(one.at_ms)}: {summary(one.checks)}")]


def job(one: JobView) -> list[str]:
    return [
        one.job_id,
        one.kernel,
        str(one.state),
        one.reason_text or str(one.reason),
        shown.percent(one.fraction * 100),
        shown.qu(one.cap_qu),
        shown.qu(one.held_qu),
        shown.qu(one.paid_qu + one.fee_qu),
        shown.qu(one.returned_qu),
        shown.moment(one.created_ms),
    ]


def attempt(one: AttemptView) -> list[str]:
    return [
        str(one.fence),
        shown.peer(one.provider),
        shown.ran_on(one.model, one.backend),
        str(one.state),
        one.detail or str(one.reason),
        f"{one.units_accepted:,} of {one.units:,}",
        shown.seconds(one.run_ms),
        shown.seconds(one.billed_ms),
        shown.seconds(one.check_ms),
        one.verdict,
        shown.qu(one.paid_qu),
        shown.qu(one.fee_qu),
    ]


def money(one: JobView) -> list[tuple[str, str]]:
    """The hold and what became of it, in QU."""
    return [
        ("cap", shown.qu(one.cap_qu)),
        ("held", shown.qu(one.held_qu)),
        ("paid", shown.qu(one.paid_qu)),
        ("fee", shown.qu(one.fee_qu)),
        ("returned", shown.qu(one.returned_qu)),
    ]
