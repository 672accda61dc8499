# SPDX-License-Identifier: Apache-2.0
"""Where an address was given out. The addresses are the registries' own, and a national research network's each."""

import pytest

from qubix_coordinator.market import places


@pytest.mark.parametrize(
    ("address", "country"),
    [
        ("193.0.6.139", "NL"),
        ("::ffff:193.0.6.139", "NL"),
        ("2001:67c:2e8:22::c100:68b", "NL"),
        ("199.43.0.47", "US"),
        ("133.11.0.1", "JP"),
        ("200.160.2.3", "BR"),
        ("127.0.0.1", ""),
        ("10.1.2.3", ""),
        ("192.168.1.1", ""),
        ("203.0.113.7", ""),
        ("::1", ""),
        ("fe80::1", ""),
        ("", ""),
        ("nonsense", ""),
        ("1.2.3.4.5", ""),
    ],
)
def test_countries_of_addresses(address: str, country: str) -> None:
    assert places.country(address) == country


@pytest.mark.parametrize(
    ("wish", "seen", "regions", "given"),
    [
        ("", "", ("local",), "local"),
        ("eu", "DE", ("local", "eu"), "eu"),
        ("mars", "DE", ("local", "eu", "de"), "de"),
        ("mars", "DE", ("local", "eu"), "local"),
        ("", "US", ("eu", "us"), "us"),
    ],
)
def test_regions(wish: str, seen: str, regions: tuple[str, ...], given: str) -> None:
    assert places.region(wish, seen, regions) == given
