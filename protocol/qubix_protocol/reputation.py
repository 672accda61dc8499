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
