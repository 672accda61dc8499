# SPDX-License-Identifier: Apache-2.0
"""What the market can be searched and sorted by. One table: names, kinds, units, and how a listing is read.

A reading that is not there is None: unknown, never zero. The database's twin of `read` is `market/search_sql.py` in the
coordinator; a property test holds them together.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from qubix_protocol.api import ListingView
from qubix_protocol.messages import Sample
from qubix_protocol.query import units
from qubix_protocol.query.units import Dimension
from qubix_protocol.states import Availability, DeviceKind, Isolation

Value = int | float | str | bool | tuple[int, ...]


class Kind(StrEnum):
    """How values of a field are written and compared."""

    WHOLE = "a whole number in its base unit"
    REAL = "a number"
    VERSION = "a version: 12.10 is above 12.9, 13 is 13.0"
    MODEL = "a device's name, the maker's words in front left out, letters large or small, _ for a blank"
    WORD = "a word, letters large or small"
    ID = "an id, as it is"
    CHOICE = "one of a few words"
    YESNO = "true or false"
    SET = "has the word among its words"


ORDERED: Final = frozenset({Kind.WHOLE, Kind.REAL, Kind.VERSION})
"""Kinds for which < and ranges mean something."""
SORTABLE: Final = frozenset(set(Kind) - {Kind.SET})


@dataclass(frozen=True, slots=True)
class Field:
    """`read` gives None where a listing does not tell."""

    name: str
    kind: Kind
    read: Callable[[ListingView], Value | None]
    about: str
    aliases: tuple[str, ...] = ()
    dimension: Dimension = units.RATIO
    choices: tuple[str, ...] = ()


_VERSION: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})*")
_LOWER: Final = {letter: letter + 32 for letter in range(ord("A"), ord("Z") + 1)}
MAKERS: Final = ("nvidia", "geforce", "amd", "radeon", "intel(r)", "intel", "arc(tm)", "apple", "tesla", "quadro")
"""Words in front of a model's name that people leave out."""
_MAKERS: Final = re.compile(f"(?:(?:{'|'.join(re.escape(one) for one in MAKERS)}) )*")


def lower(text: str) -> str:
    """A to Z alone: the same on every machine and in every database."""
    return text.translate(_LOWER)


def model_key(text: str) -> str:
    """`NVIDIA GeForce RTX 4090` and `rtx_4090` are one."""
    plain = lower(text).replace("_", " ")
    found = _MAKERS.match(plain)
    return plain[found.end() if found else 0 :]


def version_key(text: str) -> tuple[int, ...] | None:
    """Of the version that the text begins with; None where it begins with none. Noughts at the end do not count."""
    found = _VERSION.match(text)
    if found is None:
        return None
    parts = [int(part) for part in found[0].split(".")]
    while len(parts) > 1 and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def search_text(one: ListingView) -> str:
    """What free text is looked for in. A needle has no line feed, so it never spans two of them."""
    return lower("\n".join((one.model, one.region, one.country, one.provider, one.driver)))


def _known(value: int) -> int | None:
    return value or None


def _metric(name: str) -> Callable[[ListingView], Value | None]:
    def read(one: ListingView) -> Value | None:
        return getattr(one.metrics, name) if one.metrics is not None else None

    return read


def _memory_free(one: ListingView) -> int | None:
    sample: Sample | None = one.metrics
    if sample is None or sample.memory_used_bytes is None:
        return None
    whole = sample.memory_total_bytes if sample.memory_total_bytes is not None else one.memory_bytes
    return max(0, whole - sample.memory_used_bytes)


def _score_per_qu(one: ListingView) -> float | None:
    return one.score / one.rate_qu_per_h if one.score and one.rate_qu_per_h else None


_ALL: Final = (
    Field("gpu_name", Kind.MODEL, lambda one: one.model, "the device's model", ("model", "gpu")),
    Field(
        "num_gpus",
        Kind.WHOLE,
        lambda one: one.devices_alike,
        "devices of this model that the node has in the market",
        ("gpus",),
        units.COUNT,
    ),
    Field(
        "gpu_ram",
        Kind.WHOLE,
        lambda one: _known(one.memory_bytes),
        "the device's memory",
        ("memory", "vram", "gpu_mem"),
        units.BYTES,
    ),
    Field(
        "gpu_cores",
        Kind.WHOLE,
        lambda one: _known(one.cores),
        "the device's cores or multiprocessors",
        ("cores",),
        units.COUNT,
    ),
    Field(
        "compute_cap",
        Kind.VERSION,
        lambda one: version_key(one.compute_capability),
        "CUDA compute capability, such as 8.9",
        ("compute_capability", "cc"),
    ),
    Field(
        "cuda_vers",
        Kind.VERSION,
        lambda one: version_key(one.cuda),
        "the CUDA version that the driver supports",
        ("cuda_version", "cuda"),
    ),
    Field(
        "driver_version",
        Kind.VERSION,
        lambda one: version_key(one.driver),
        "the driver's version",
        ("driver", "driver_vers"),
    ),
    Field(
        "backend", Kind.SET, lambda one: one.model, "what kernels can run on there: cuda, cpu, wgpu …", ("backends",)
    ),
    Field(
        "kind",
        Kind.CHOICE,
        lambda one: one.kind.value,
        "the kind of device",
        ("device_kind",),
        choices=tuple(one.value for one in DeviceKind),
    ),
    Field("browser", Kind.YESNO, lambda one: one.browser, "a browser's tab, which may close any time", ("tab",)),
    Field(
        "isolation",
        Kind.CHOICE,
        lambda one: one.isolation.value,
        "what stands around a job there",
        choices=tuple(one.value for one in Isolation),
    ),
    Field("cpu_cores", Kind.WHOLE, lambda one: _known(one.cpu_cores), "cores of the node's processor", (), units.COUNT),
    Field(
        "cpu_ram",
        Kind.WHOLE,
        lambda one: _known(one.cpu_memory_bytes),
        "memory of the node",
        ("cpu_memory",),
        units.BYTES,
    ),
    Field(
        "disk_space",
        Kind.WHOLE,
        lambda one: _known(one.disk_free_bytes),
        "disk for inputs and results",
        ("disk", "disk_free"),
        units.BYTES,
    ),
    Field(
        "inet_down",
        Kind.WHOLE,
        lambda one: _known(one.inet_down_bytes_per_s),
        "bandwidth to the node",
        ("download",),
        units.BANDWIDTH,
    ),
    Field(
        "inet_up",
        Kind.WHOLE,
        lambda one: _known(one.inet_up_bytes_per_s),
        "bandwidth from the node",
        ("upload",),
        units.BANDWIDTH,
    ),
    Field("region", Kind.WORD, lambda one: lower(one.region) or None, "the region that the node offers in"),
    Field(
        "country",
        Kind.WORD,
        lambda one: lower(one.country) or None,
        "two letters: the node's country",
        ("geolocation", "geo"),
    ),
    Field(
        "country_seen", Kind.YESNO, lambda one: one.country_seen, "the country was found by the address a gateway saw"
    ),
    Field(
        "price",
        Kind.WHOLE,
        lambda one: one.rate_qu_per_h,
        "what an hour costs",
        ("rate", "price_per_hour", "dph", "rate_qu_per_h"),
        units.PRICE,
    ),
    Field("score", Kind.REAL, lambda one: one.score or None, "measured float32 matrix products", (), units.FLOPS),
    Field("score_per_qu", Kind.REAL, _score_per_qu, "GFLOP/s for each QU/h", ("score_per_cost", "score_per_price")),
    Field(
        "reliability",
        Kind.REAL,
        lambda one: one.reliability or None,
        "by checked work for unrelated consumers",
        (),
        units.SHARE,
    ),
    Field("verified", Kind.YESNO, lambda one: one.verified, "self-test and challenge passed"),
    Field(
        "jobs_accepted",
        Kind.WHOLE,
        lambda one: one.jobs_accepted,
        "pieces of work that passed their check",
        ("checked", "accepted"),
        units.COUNT,
    ),
    Field(
        "jobs_rejected",
        Kind.WHOLE,
        lambda one: one.jobs_rejected,
        "pieces of work that did not",
        ("rejected",),
        units.COUNT,
    ),
    Field(
        "rentable",
        Kind.YESNO,
        lambda one: one.availability is Availability.AVAILABLE,
        "free to be taken now",
        ("available",),
    ),
    Field(
        "availability",
        Kind.CHOICE,
        lambda one: one.availability.value,
        "what the node says that it is doing",
        ("state",),
        choices=tuple(one.value for one in Availability),
    ),
    Field(
        "notice",
        Kind.WHOLE,
        lambda one: _known(one.notice_s),
        "how long before maintenance it is said",
        ("notice_s",),
        units.SECONDS,
    ),
    Field("stale", Kind.YESNO, lambda one: one.stale, "its newest reading may be older than a minute"),
    Field(
        "utilisation",
        Kind.REAL,
        _metric("utilisation_pct"),
        "how busy the device is",
        ("use", "utilization", "gpu_util"),
        units.PERCENT,
    ),
    Field("memory_used", Kind.WHOLE, _metric("memory_used_bytes"), "memory in use", ("vram_used",), units.BYTES),
    Field("memory_free", Kind.WHOLE, _memory_free, "memory not in use", ("vram_free",), units.BYTES),
    Field(
        "temperature",
        Kind.REAL,
        _metric("temperature_c"),
        "the device's temperature",
        ("temp", "gpu_temp"),
        units.CELSIUS,
    ),
    Field("power", Kind.WHOLE, _metric("power_mw"), "what the device draws", ("power_draw",), units.WATTS),
    Field("power_limit", Kind.WHOLE, _metric("power_limit_mw"), "what the device may draw", (), units.WATTS),
    Field("clock", Kind.WHOLE, _metric("clock_mhz"), "the multiprocessors' clock", (), units.MEGAHERTZ),
    Field("fan", Kind.REAL, _metric("fan_pct"), "fan speed", (), units.PERCENT),
    Field("provider", Kind.ID, lambda one: one.provider, "the node's peer id", ("peer", "node")),
    Field("device", Kind.ID, lambda one: one.device_id, "the device's id", ("device_id", "uuid")),
    Field("listing", Kind.ID, lambda one: one.listing_id, "the listing's id", ("listing_id", "id")),
)

FIELDS: Final[Mapping[str, Field]] = {one.name: one for one in _ALL}
NAMES: Final[Mapping[str, Field]] = {name: one for one in _ALL for name in (one.name, *one.aliases)}
"""By every name it may be written with."""
