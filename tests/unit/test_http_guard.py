# SPDX-License-Identifier: Apache-2.0
"""Host and Origin: what is ours, and what only looks like it."""

from pathlib import Path

import pytest

from qubix_coordinator.errors import Forbidden
from qubix_coordinator.http import guard
from qubix_coordinator.settings import Settings

OURS = guard.allowed_hosts(
    Settings(
        data_dir=Path("unused"),
        http_host="0.0.0.0",
        public_url="https://market.example:8443/x",
        allowed_hosts=("Extra.example",),
    )
)


def test_names_come_from_the_settings_and_never_from_an_unbound_address() -> None:
    assert {"localhost", "127.0.0.1", "::1", "market.example", "extra.example"} == OURS


@pytest.mark.parametrize("host", ["localhost:8600", "127.0.0.1", "[::1]:1", "MARKET.example", "extra.example:80"])
def test_our_names_pass_with_any_port(host: str) -> None:
    guard.check(host, f"http://{host}", OURS)
    guard.check(host, None, OURS)


@pytest.mark.parametrize(
    "host",
    [None, "", "][", "[", "0.0.0.0", "evil.example", "localhost.evil.example", "evil.example#localhost", "x@y:z"],
)
def test_other_hosts_are_refused(host: str | None) -> None:
    with pytest.raises(Forbidden) as caught:
        guard.check(host, None, OURS)
    assert caught.value.field == "Host"


@pytest.mark.parametrize(
    "origin", ["null", "", "https://evil.example", "http://localhost.evil.example", "http://[", "file://"]
)
def test_other_origins_are_refused(origin: str) -> None:
    with pytest.raises(Forbidden) as caught:
        guard.check("localhost", origin, OURS)
    assert caught.value.field == "Origin"
