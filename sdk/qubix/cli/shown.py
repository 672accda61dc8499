# SPDX-License-Identifier: Apache-2.0
"""How values look, the same in every command. Pure: times are arguments."""

import datetime

from qubix_protocol.api import ListingView


def qu(amount: int) -> str:
    return f"{amount:,}"


def memory(size: int) -> str:
    return f"{size / 1024**3:,.1f} GiB"


def seconds(ms: int | float | None) -> str:
    return "" if ms is None else f"{ms / 1000:,.2f} s"


def percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} %"


def moment(at_ms: int) -> str:
    """In this machine's time zone."""
    return datetime.datetime.fromtimestamp(at_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def peer(text: str) -> str:
    """A peer id by its telling end."""
    return f"…{text[-10:]}" if len(text) > 14 else text


def ran_on(model: str, backend: str) -> str:
    return f"{model} ({'CPU' if backend == 'cpu' else backend})"


def cause(text: str) -> str:
    """The job that a movement was for, which is the second part of its cause; credit was for none."""
    kind, _, rest = text.partition(":")
    return "" if kind == "development_credit" else rest.partition(":")[0] or text


def driver(offer: ListingView) -> str:
    return " / ".join(part for part in (offer.driver, offer.cuda) if part)


def record(offer: ListingView) -> str:
    """Attempts whose result passed its check, of all that were checked."""
    return f"{offer.jobs_accepted:,} of {offer.jobs_accepted + offer.jobs_rejected:,}"


def utilisation(offer: ListingView) -> str:
    if offer.metrics is None:
        return ""
    return percent(offer.metrics.utilisation_pct) + (" (stale)" if offer.stale else "")
