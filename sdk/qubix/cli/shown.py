# SPDX-License-Identifier: Apache-2.0
"""How values look, the same in every command. Pure: times are arguments."""

import datetime
from collections.abc import Collection

from qubix_protocol.api import ListingView
from qubix_protocol.states import Isolation, Throttle

_MODEL_MAX = 22

_VALUE_CHARS = 48


def qu(amount: int) -> str:
    return f"{amount:,}"


def value(given: object) -> str:
    """A parameter; a long one by its beginning."""
    text = str(given)
    return text if len(text) <= _VALUE_CHARS else f"{text[:_VALUE_CHARS]}… ({len(text):,} characters)"


def memory(size: int) -> str:
    return f"{size / 1024**3:,.1f} GiB"


def size(whole: int) -> str:
    """Bytes, in the unit that keeps the number short."""
    at = next((at for at in range(3) if whole < 1024 ** (at + 1)), 3)
    return f"{whole / 1024**at:,.4g} {('bytes', 'KiB', 'MiB', 'GiB')[at]}"


def seconds(ms: int | float | None) -> str:
    return "" if ms is None else f"{ms / 1000:,.2f} s"


def percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} %"


def check_paid(fee_bps: int) -> str:
    return f"Each cost holds the market's {fee_bps / 100:g} %, which pays the check."


def moment(at_ms: int) -> str:
    """In this machine's time zone."""
    return datetime.datetime.fromtimestamp(at_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def peer(text: str) -> str:
    """A peer id by its telling end."""
    return f"…{text[-10:]}" if len(text) > 14 else text


def ran_on(model: str, backend: str) -> str:
    return f"{model} ({'CPU' if backend == 'cpu' else backend})"


def cause(text: str) -> str:
    """What a movement was for: the job, withdrawal or other order that is the second part of its cause, the transaction
    of a deposit; credit was for none."""
    kind, *rest = text.split(":")
    if kind == "deposit" and len(rest) == 4:
        return rest[2]
    return "" if kind == "development_credit" else (rest[0] if rest else "") or text


def driver(offer: ListingView) -> str:
    return " / ".join(part for part in (offer.driver, offer.cuda) if part)


def record(offer: ListingView) -> str:
    """Attempts whose result passed its check, of all that were checked."""
    return f"{offer.jobs_accepted:,} of {offer.jobs_accepted + offer.jobs_rejected:,}"


def age(offer: ListingView) -> str:
    """How long ago its readings came, marked when they are too old to count on."""
    if offer.metrics is None or offer.metrics_age_ms is None:
        return ""
    return f"{offer.metrics_age_ms / 1000:,.0f} s" + (" (stale)" if offer.stale else "")


def slowed_by(words: Collection[str] | None) -> str:
    """Why the clock is lowered, in words; a card that has nothing to do is not slowed."""
    return ", ".join(word.replace("_", " ") for word in words or () if word != Throttle.IDLE)


def first_of(words: str) -> str:
    """The first of several, and how many more there are."""
    first, *more = words.split(", ")
    return f"{first} +{len(more)}" if more else first


def short_model(text: str) -> str:
    """No longer than a column: first without the maker that most cards share. A CPU is still called one."""
    name, mark, _ = text.partition(" (CPU)")
    room = _MODEL_MAX - len(mark)
    if len(name) > room:
        name = name.removeprefix("NVIDIA ")
    return (name if len(name) <= room else f"{name[: room - 1]}…") + mark


def utilisation(offer: ListingView) -> str:
    if offer.metrics is None:
        return ""
    return percent(offer.metrics.utilisation_pct) + (" (stale)" if offer.stale else "")


def isolation(offer: ListingView) -> str:
    return "a box" if offer.isolation is Isolation.BOX else "a limited process"
