# SPDX-License-Identifier: Apache-2.0
"""What is made of what a driver says: whether a card can be rented, and which errors end its place in the market."""

import re
from dataclasses import dataclass
from typing import Final

CAPABILITY_MIN: Final = (7, 5)
"""Turing: the oldest that CUDA 13 compiles for, and the oldest that our kernels are compiled for in tests."""
DRIVER_MIN: Final = {12: 525, 13: 580}
"""The oldest driver branch for each major version of the CUDA parts (NVIDIA's table of minor version compatibility)."""
MODES_EXCLUSIVE: Final = frozenset({1, 3})
MODE_PROHIBITED: Final = 2

APPLICATION_XIDS: Final = frozenset({13, 31, 43, 45, 68, 109})
"""Critical errors that NVIDIA's catalogue lays to the program, not to the card: an access out of bounds, a kernel that
was stopped, the clean-up after a killed process. A stranger's job must not be able to take a card off the market, and
a job that is cancelled is killed: these end the job alone (docs/adr)."""


@dataclass(frozen=True, slots=True)
class Card:
    """What decides whether a card can be rented. None: the driver does not tell."""

    capability: tuple[int, int] | None
    driver: str
    mig: bool
    compute_mode: int | None


def unfit(card: Card, toolkit: int | None) -> str:
    """Why nothing can run on the card, and what would mend it; "" when it can be rented.

    `toolkit` is the major version of the CUDA parts that are installed beside the node; None: there are none.
    """
    if card.capability is None:
        return "it does not tell its compute capability, so it cannot run CUDA"
    if card.capability < CAPABILITY_MIN:
        found, least = (".".join(map(str, pair)) for pair in (card.capability, CAPABILITY_MIN))
        return f"its compute capability is {found}, and kernels need {least} or higher"
    if card.mig:
        return "MIG is on and whole cards are rented here: turn it off with nvidia-smi -mig 0"
    if card.compute_mode == MODE_PROHIBITED:
        return "its compute mode is prohibited: allow compute with nvidia-smi -c 0"
    return _driver_obstacle(card.driver, toolkit)


def remark(card: Card) -> str:
    """What a provider should know of a card that can be rented; "" when there is nothing."""
    if card.compute_mode in MODES_EXCLUSIVE:
        return (
            "its compute mode is exclusive: while a job runs, no other program computes on it, and the other way round"
        )
    return ""


def _driver_obstacle(driver: str, toolkit: int | None) -> str:
    if toolkit is None:
        return (
            "the CUDA parts are not installed: install qubix with the extra cuda13 (or cuda12 for drivers below r580)"
        )
    least, branch = DRIVER_MIN.get(toolkit, max(DRIVER_MIN.values())), driver_branch(driver)
    if branch is not None and branch < least:
        return f"driver {driver} is too old for CUDA {toolkit}, which needs r{least}: update the driver{_other(branch)}"
    return ""


def _other(branch: int) -> str:
    fits = [major for major, least in DRIVER_MIN.items() if branch >= least]
    return f" or install the extra cuda{max(fits)}" if fits else ""


def driver_branch(driver: str) -> int | None:
    """580 of "580.95.05"; None for what is no version."""
    found = re.match(r"(\d{1,5})\.", driver)
    return int(found[1]) if found else None


def condemns(xid: int) -> bool:
    """Whether this critical error takes the card off the market until a person has looked (trust B2)."""
    return xid not in APPLICATION_XIDS
