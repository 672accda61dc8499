# SPDX-License-Identifier: Apache-2.0
"""A card's whole way through the market: found, measured, offered, assigned, run by the CUDA back end, checked, paid.

No GPU is needed: the card is a stand-in NVML library, its kernels run in Numba's simulator (tests/support/card_node).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from qubix_protocol.api import ListingView
from qubix_protocol.states import AttemptState, DeviceKind
from tests.e2e.test_main_job import audit, client, matrices, offers, settled, until
from tests.support import nvml
from tests.support.market import Market


@contextmanager
def card(market: Market, **env: str) -> Iterator[Path]:
    """A node with one card is in the market; gives the gauges of the card."""
    state = market.folder / "gauges"
    nvml.write(state, {"count": 1})
    library = nvml.build(market.folder)
    market.start_node(
        "card",
        "tests.support.card_node",
        **{"QUBIX_NODE_DEVICES": "auto", "STUB_LIBRARY": str(library), "STUB_GAUGES": str(state), **env},
    )
    yield state


def test_a_card_is_found_rented_and_paid_and_leaves_with_a_critical_error(market: Market) -> None:
    with card(market) as gauges, client(market) as api:
        until(lambda: [one.backends for one in api.offers()] == [("cuda",)])  # seen at once, rented when measured
        (found,) = api.offers()
        assert (found.kind, found.backends, found.model) == (DeviceKind.CUDA, ("cuda",), "Test Card 0")
        assert found.compute_capability == "8.9"

        nvml.write(gauges, {"count": 1, "temp": 83, "throttle": 0x20, "util": 97})
        until(lambda: _shown(api.offers()) == (83.0, ("thermal",), 97.0))

        a, b = matrices(20)
        job = api.submit("matmul", a=a, b=b, cap_qu=500_000)
        np.testing.assert_allclose(job.result()["c"], a @ b, rtol=1e-3, atol=1e-3)
        view = job.refresh()
        settled(view)
        (attempt,) = view.attempts
        assert (attempt.backend, attempt.model, attempt.state) == ("cuda", "Test Card 0", AttemptState.ACCEPTED)
        assert view.paid_qu >= 1
        assert attempt.listing_id == found.listing_id
        assert {one.temperature_c for one in api.readings(found.listing_id)} >= {83.0}, "for a chart"

        nvml.write(gauges, {"count": 1, "xid": 79})
        until(lambda: not api.offers())
        assert "reason=the driver reported critical error Xid 79" in market.parts["card"].tail()
    audit(market)


@pytest.mark.slow  # sim/test_node_rates has such a card daily
def test_a_card_on_which_nothing_runs_is_shown_and_the_cpu_is_rented_instead(market: Market) -> None:
    """NVML answers and CUDA does not work: measuring finds out, before any consumer does."""
    with card(market, STUB_SIMULATOR="0"), client(market) as api:
        until(offers(api, 2))
        found = {one.kind: one for one in api.offers()}
        assert found[DeviceKind.CUDA].backends == ()
        assert found[DeviceKind.CPU].backends == ("cpu",)
        log = market.parts["card"].log.read_text()
        assert "rates.not_measured" in log
        assert "no CUDA device can be used" in log
        a, b = matrices(50)
        job = api.submit("matmul", a=a, b=b, cap_qu=5_000)
        np.testing.assert_allclose(job.result()["c"], a @ b, rtol=1e-3, atol=1e-3)
        assert [attempt.backend for attempt in job.refresh().attempts] == ["cpu"]


def _shown(found: list[ListingView]) -> tuple[object, ...]:
    sample = found[0].metrics if found else None
    return (sample.temperature_c, sample.throttle, sample.utilisation_pct) if sample else ()
