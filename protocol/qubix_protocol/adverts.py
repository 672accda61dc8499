# SPDX-License-Identifier: Apache-2.0
"""What is gossiped: a node's signed offer beside the coordinator's word that this node may gossip it (trust P3).

On the wire: MessagePack `[certificate, offer]`, both whole envelopes. Each advert can be judged by itself, so nobody
has to have heard anything before.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from qubix_protocol import codec
from qubix_protocol.envelope import ANYONE, read_evidence
from qubix_protocol.errors import NotCertified, ProtocolError, WrongRegion
from qubix_protocol.messages import Certificate
from qubix_protocol.units import CERTIFICATE_BYTES_MAX, GOSSIP_BYTES_MAX, Network


class Advert(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    certificate: Annotated[bytes, Meta(max_length=CERTIFICATE_BYTES_MAX)]
    offer: Annotated[bytes, Meta(max_length=GOSSIP_BYTES_MAX)]


def encode_advert(certificate: bytes, offer: bytes) -> bytes:
    return codec.encode(Advert(certificate, offer))


def decode_advert(data: bytes) -> Advert:
    """Raises `TooLarge` or `Malformed`; nothing inside is judged."""
    advert: Advert = codec.decode(data, Advert, limit_bytes=GOSSIP_BYTES_MAX)
    return advert


class Licence(msgspec.Struct, frozen=True):
    """A certificate that the coordinator signed: who may gossip where, until when, in which session."""

    peer_id: str
    region: str
    expires_ms: int
    incarnation: int

    def check(self, *, author: str, region: str, incarnation: int, now_ms: int | None) -> None:
        """Raises `NotCertified` or `WrongRegion`. `now_ms` None: nobody has told the time yet."""
        if self.peer_id != author:
            raise NotCertified("the certificate is of another node")
        if self.region != region:
            raise WrongRegion(f"certified for the region {self.region!r}, not {region!r}")
        if self.incarnation != incarnation:
            raise NotCertified(f"the certificate is of session {self.incarnation}, the offer of {incarnation}")
        if now_ms is not None and now_ms > self.expires_ms:
            raise NotCertified("the certificate has expired")


def read_certificate(raw: bytes, *, network: Network, coordinator: bytes) -> Licence:
    """Costs a signature's check. Raises `NotCertified` for whatever the coordinator did not sign for everybody to read;
    the envelope's own short expiry does not end it."""
    try:
        opened = read_evidence(raw, network=network, sender=coordinator)
        said = opened.body(Certificate)
    except ProtocolError as problem:
        raise NotCertified(f"no certificate of this market's coordinator: {problem}") from problem
    if opened.header.audience != ANYONE:
        raise NotCertified("the certificate is not for everybody to read")
    return Licence(said.peer_id, said.region, said.expires_ms, opened.header.incarnation)
