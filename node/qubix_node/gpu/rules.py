# SPDX-License-Identifier: Apache-2.0
"""What is made of what a driver says: whether a card can be rented, and which errors end its place in the market."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from qubix_kernels.adapters import Adapter
from qubix_node.gpu.drm import RenderNode
from qubix_protocol.states import named_software

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


# Cards that Vulkan, Metal or Direct3D drive --------------------------------------------------------------------------

NVIDIA: Final = 0x10DE
_APIS: Final = ("Vulkan", "Metal", "D3D12")
"""The first that knows a card is taken."""


@dataclass(frozen=True, slots=True)
class Graphics:
    """An adapter that is offered, and its render node where the system has such."""

    adapter: Adapter
    node: RenderNode | None


def is_software(adapter: Adapter) -> bool:
    return adapter.kind == "software" or named_software(adapter.name, adapter.driver)


def graphics(
    adapters: Sequence[Adapter], nodes: Sequence[RenderNode] | None, *, software: bool
) -> tuple[list[Graphics], dict[str, str]]:
    """Which of them are cards to offer, each once; and of the others by name, why not. NVIDIA's are NVML's, whatever
    else finds them. `nodes` None: this system has no render nodes. `software`: a test wants what is no card, too."""
    taken: list[Graphics] = []
    left = {adapter.name: why for adapter in adapters if (why := _unwanted(adapter, software))}
    free = list(nodes or ())
    apis: dict[tuple[int, int, str], str] = {}
    names: set[str] = set()
    for adapter in sorted((one for one in adapters if one.name not in left), key=_rank):
        card = (adapter.vendor_id, adapter.device_id, "" if adapter.device_id else adapter.name)
        if apis.setdefault(card, adapter.api) != adapter.api:
            continue  # the same cards by another way
        node = next((one for one in free if (one.vendor_id, one.device_id) == card[:2] and one.usable), None)
        if node is not None:
            free.remove(node)
        elif nodes is not None and not is_software(adapter):
            left.setdefault(
                adapter.name, "it has no render node that this user may open, or is there by another driver"
            )
            continue
        if node is None and adapter.name in names:
            continue  # workers tell cards apart by their nodes, or else by name
        names.add(adapter.name)
        taken.append(Graphics(adapter, node))
    return taken, {name: why for name, why in left.items() if name not in names}


def _rank(adapter: Adapter) -> int:
    return _APIS.index(adapter.api) if adapter.api in _APIS else len(_APIS)


def _unwanted(adapter: Adapter, software: bool) -> str:
    if adapter.vendor_id == NVIDIA or "nvidia" in f"{adapter.name} {adapter.maker}".lower():
        return "NVIDIA's cards are offered through CUDA: install NVIDIA's own driver"
    if is_software(adapter):
        return "" if software else "it is software on the processor, no card: the processor is offered as one"
    if adapter.kind not in ("discrete", "integrated"):
        return "its driver does not tell what it is: perhaps a virtual machine's stand-in"
    return ""


def unreachable(nodes: Sequence[RenderNode]) -> str:
    """What to do about cards that this user may not open; "" when there are none."""
    closed = [str(one.path) for one in nodes if not one.usable and one.vendor_id != NVIDIA]
    return f"this user may not open {', '.join(closed)}: add it to the group `render`" if closed else ""
