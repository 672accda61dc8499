# SPDX-License-Identifier: Apache-2.0
"""Digests of structured values: SHA-256 of a canonical encoding (msgspec's MessagePack with sorted keys)."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from qubix_protocol.messages import InputRef, Link

ZERO = bytes(32)
_canonical = msgspec.msgpack.Encoder(order="deterministic")


def of_bytes(data: bytes | memoryview) -> bytes:
    return hashlib.sha256(data).digest()


def of_params(params: Mapping[str, Any]) -> bytes:
    """Of a kernel's parameters after `Kernel.normalise`: order does not matter, 1 and 1.0 differ."""
    return of_bytes(b"qubix/params/1\0" + _canonical.encode(dict(params)))


def of_inputs(inputs: Iterable[InputRef]) -> bytes:
    """Of a job's inputs by name, content and form: order does not matter."""
    return of_bytes(b"qubix/inputs/1\0" + _canonical.encode(sorted(inputs, key=lambda ref: ref.name)))


def of_link(link: Link) -> bytes:
    """The chain digest: it covers the link's predecessor, hence the whole chain before it."""
    return of_bytes(b"qubix/link/1\0" + _canonical.encode(link))
