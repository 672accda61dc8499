# SPDX-License-Identifier: Apache-2.0
"""A node's look at itself: checks that a newcomer can read, each with what was found, what is needed and what to do.

A self-test is a claim of the node, and shown as one. What the market relies on is a trial (`trials`).
"""

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from qubix_protocol.api import Body, View
from qubix_protocol.messages import Digest, Id, Message, Millis, Name, Short, Text

CHECKS_MAX: Final = 64
PROBE_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of the artifact that a self-test sends and reads back to measure the way to the store."""
_MEASURED: Final = re.compile(r"(?!\d+ of \d+$)((?!\d+ of )[+-]?\d[\d.,]*(\s.*)?|.*\s\d[\d.,]*)$")


def with_unit(text: str, unit: str) -> str:
    """A measurement has its unit (`12.5`, `12 up, 9 down`, `right, in 3.2`, `under 90`); what is said in words needs
    none (`3 of 5`, `no answer`). The web pages have the same rule (`withUnit`)."""
    return f"{text} {unit}" if unit and _MEASURED.match(text) else text


class CheckStatus(StrEnum):
    PASS = "pass"  # noqa: S105 - a word of the status, no secret
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


class Check(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`actual` and `required` are words for people, in `unit` where that is given. A check that does not pass has a
    `remedy`."""

    id: Name
    title: Short
    status: CheckStatus
    actual: Short
    required: Short = ""
    unit: Annotated[str, Meta(max_length=20)] = ""
    purpose: Text
    remedy: Text = ""

    @property
    def found(self) -> str:
        """`actual` with its unit."""
        return with_unit(self.actual, self.unit)

    @property
    def needed(self) -> str:
        return with_unit(self.required, self.unit)


class SelfTestAsk(Message, frozen=True, kw_only=True, tag="selftest_ask"):
    """Coordinator → node: look at this device of yours now."""

    device_id: Short
    quick: bool = False


class SelfTest(Message, frozen=True, kw_only=True, tag="selftest"):
    """Node → coordinator: what it found. `at_ms` is by the node's clock. `quick`: nothing was measured; `full`:
    everything that applies to the device was looked at."""

    test_id: Id
    device_id: Short
    at_ms: Millis
    took_ms: Millis
    quick: bool
    full: bool
    checks: Annotated[tuple[Check, ...], Meta(min_length=1, max_length=CHECKS_MAX)]

    @property
    def passed(self) -> bool:
        return not failing(self.checks)


class ProbeRequest(Message, frozen=True, kw_only=True, tag="probe_request"):
    """One request of a node for its own test artifact (trust D1): it owns what it sends, and can read no other."""

    method: Annotated[str, Meta(pattern="^(GET|PUT)$")]
    digest: Digest
    size_bytes: Annotated[int, Meta(ge=1, le=PROBE_BYTES_MAX)]


class SelfTestBody(Body, frozen=True, kw_only=True):
    """`POST /offers/{id}/selftest`."""

    quick: bool = False


class SelfTestView(View, frozen=True, kw_only=True):
    """`GET /offers/{id}/selftest`: the last one of this device. `at_ms` (when it was heard) is None when there is none.

    `verified` and `score` are the market's own findings; the checks are the node's word.
    """

    listing_id: Id
    verified: bool
    score: float
    asked_ms: int | None = None
    at_ms: int | None = None
    age_ms: int | None = None
    took_ms: int = 0
    quick: bool = False
    full: bool = False
    passed: bool = False
    checks: tuple[Check, ...] = ()


def failing(checks: Iterable[Check]) -> tuple[Check, ...]:
    return tuple(check for check in checks if check.status is CheckStatus.FAIL)


def summary(checks: Iterable[Check]) -> str:
    """One line: what fails first, and what to do about it."""
    listed = list(checks)
    bad = failing(listed)
    if bad:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        return f"{bad[0].title}: {bad[0].actual}{more}. {bad[0].remedy}"
    warned = [check for check in listed if check.status is CheckStatus.WARN]
    if warned:
        return f"{warned[0].title}: {warned[0].actual}. {warned[0].remedy}"
    return f"{sum(check.status is CheckStatus.PASS for check in listed)} checks passed"
