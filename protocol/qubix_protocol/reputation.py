# SPDX-License-Identifier: Apache-2.0
"""Why a listing is thought reliable, or not: the answer of `GET /offers/{listing_id}/reputation`."""

from qubix_protocol.api import View
from qubix_protocol.messages import Id


class ReputationPart(View, frozen=True, kw_only=True):
    """One thing that its past says. `value` is 0 to 1, `text` one sentence with the numbers in it."""

    name: str
    value: float
    text: str
    numbers: dict[str, float]


class ReputationView(View, frozen=True, kw_only=True):
    """`reliability` follows from the parts as `text` says; 0 without a record of checked work."""

    listing_id: Id
    reliability: float
    text: str
    parts: tuple[ReputationPart, ...]


class WorkOutcomeView(View, frozen=True, kw_only=True):
    """One thing that is known of a piece of work on a device, without whose it was. `receipt`: SHA-256 of the signed
    settlement, by which whoever has the receipt can point at it; empty while nothing was settled. `counts` False: it
    was for somebody related to the provider, and proves nothing."""

    at_ms: int
    what: str
    kernel: str
    worth_qu: int
    run_ms: int
    counts: bool
    receipt: str


class WorkOutcomesView(View, frozen=True, kw_only=True):
    """`GET /offers/{id}/work`: the newest, newest first."""

    listing_id: Id
    outcomes: tuple[WorkOutcomeView, ...]
