# SPDX-License-Identifier: Apache-2.0
"""The query line. Pure."""

from qubix_tui.sorting import Keeps, everything


def keeps(text: str) -> Keeps:
    """Every word must stand in what a listing is called."""
    words = text.lower().split()
    if not words:
        return everything
    return lambda one: all(
        word in f"{one.model} {one.region} {one.country} {' '.join(one.backends)} {one.provider}".lower()
        for word in words
    )
