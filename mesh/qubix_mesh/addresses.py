# SPDX-License-Identifier: Apache-2.0
"""Multiaddrs, checked before anything is dialled."""

from dataclasses import dataclass

from multiaddr import Multiaddr
from multiaddr.exceptions import Error as MultiaddrError

from qubix_mesh.errors import BadAddress
from qubix_protocol.errors import Malformed
from qubix_protocol.keys import public_key_of

_EXAMPLE = "/ip4/203.0.113.7/tcp/4001/p2p/12D3KooW…"
_HOSTS = ("ip4", "ip6", "dns", "dns4", "dns6")
_TEXT_MAX = 512


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """One way to one peer: `transport` is the address without its /p2p part."""

    peer_id: str
    transport: str

    def __str__(self) -> str:
        return f"{self.transport}/p2p/{self.peer_id}"


def parse_peer(text: str) -> PeerAddress:
    """An address that names its peer by an Ed25519 key, over TCP. Raises `BadAddress` that says what is wrong."""
    names = _names(text)
    if names[-1:] != ["p2p"]:
        raise BadAddress(f"{_shown(text)} does not end in a peer id; write it like {_EXAMPLE}")
    transport, _, peer_id = text.rstrip("/").rpartition("/p2p/")
    try:
        public_key_of(peer_id)
    except Malformed as error:
        raise BadAddress(f"{_shown(text)}: {error}") from error
    _require_tcp(text, names[:-1])
    return PeerAddress(peer_id, transport)


def parse_listen(text: str) -> str:
    """A TCP address to listen on, without a peer id."""
    _require_tcp(text, _names(text))
    return text


def _names(text: str) -> list[str]:
    if len(text) > _TEXT_MAX:
        raise BadAddress(f"an address of {len(text)} characters is too long, at most {_TEXT_MAX}")
    try:
        return [protocol.name for protocol in Multiaddr(text).protocols()]
    except (MultiaddrError, ValueError, LookupError, TypeError) as error:
        raise BadAddress(f"{_shown(text)} is not a multiaddr ({error}); write it like {_EXAMPLE}") from error


def _require_tcp(text: str, names: list[str]) -> None:
    if len(names) != 2 or names[0] not in _HOSTS or names[1] != "tcp":
        raise BadAddress(f"{_shown(text)} is not a plain TCP address; write it like {_EXAMPLE}")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 120 else text[:117] + "...")
