# SPDX-License-Identifier: Apache-2.0
"""Which Host and Origin are ours (trust A2): a page of another site, or a name made to point here, gets nothing.

Checked for every request of the API and for every WebSocket, on loopback too.
"""

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from qubix_coordinator.errors import Forbidden
from qubix_coordinator.settings import Settings

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_UNBOUND: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - the names are excluded, nothing binds to them


def allowed_hosts(settings: Settings) -> frozenset[str]:
    named = [*LOOPBACK, settings.http_host, _host(settings.public_url), *settings.allowed_hosts]
    return frozenset(name.lower() for name in named) - _UNBOUND


def check(host: str | None, origin: str | None, allowed: Iterable[str]) -> None:
    """Raises Forbidden. No Origin is fine: browsers always send one with a write and with a WebSocket."""
    if _host(f"//{host or ''}") not in allowed:
        raise Forbidden(
            f"{(host or '')[:200]!r} is not a name of this server",
            field="Host",
            remedy="Use its own address, or add the name to QUBIX_ALLOWED_HOSTS",
        )
    if origin is not None and _host(origin) not in allowed:
        raise Forbidden(
            f"pages of {origin[:200]!r} may not use this server",
            field="Origin",
            remedy="Open the page from this server, or add its host to QUBIX_ALLOWED_HOSTS",
        )


def _host(url: str) -> str:
    """The host name of an address, in lower case; "" when it has none."""
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""
