# SPDX-License-Identifier: Apache-2.0
"""A chain of signed entries: what happened to one thing (a job, a rental), in order, so that nothing can be left out.

Each entry names the digest of the one before it, and is signed; the *end* is a signed statement of how many entries
there were when the chain was handed out, and of the last one's digest. Removing, adding, changing, reordering or
borrowing an entry breaks one or the other. The format stands in docs/receipts.md.

    entry  = MessagePack [signed, signature]
    signed = MessagePack [version, network, kind, chain_id, index, predecessor, at_ms, signer, entry, body]
    digest = SHA-256 of the whole entry, as stored
"""

import base64
import binascii
import hashlib
from collections.abc import Collection, Sequence
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from qubix_protocol import codec
from qubix_protocol.errors import BadSignature, Malformed, NotGenuine, WrongVersion
from qubix_protocol.keys import SigningKey, verify
from qubix_protocol.messages import Digest, Id, Millis, Name
from qubix_protocol.units import Network

S = TypeVar("S", bound="Statement")
T = TypeVar("T", "Header", "End")
VERSION: Final = 1
ENTRY_BYTES_MAX: Final = 1024 * 1024
ENTRIES_MAX: Final = 1_000_000
START: Final = bytes(32)
"""The predecessor of a chain's first entry."""
_ENTRY_CONTEXT: Final = b"qubix/chain-entry/1\0"
_END_CONTEXT: Final = b"qubix/chain-end/1\0"
_MAGIC: Final = f"qubix-receipt {VERSION}"
Key = Annotated[bytes, Meta(min_length=32, max_length=32)]


class Statement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="t"):
    """Base of what entries say; the tag is the entry's name."""


class Header(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is signed. `at_ms` is by the signer's clock; `entry` is the tag of the body."""

    version: int
    network: str
    kind: Name
    chain_id: Id
    index: Annotated[int, Meta(ge=0, lt=ENTRIES_MAX)]
    predecessor: Digest
    at_ms: Millis
    signer: Key
    entry: Name
    body: bytes


class End(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The chain had `length` entries at `at_ms`, and `head` is the digest of the last."""

    version: int
    network: str
    kind: Name
    chain_id: Id
    length: Annotated[int, Meta(ge=1, le=ENTRIES_MAX)]
    head: Digest
    at_ms: Millis
    signer: Key


class _Signed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    signed: bytes
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]


class Chain(msgspec.Struct, frozen=True):
    """Whose chain it is."""

    network: Network
    kind: str
    id: str


class Place(msgspec.Struct, frozen=True):
    """Where the next entry goes."""

    index: int = 0
    predecessor: bytes = START


class Entry(msgspec.Struct, frozen=True):
    """An entry whose signature and place were checked."""

    header: Header
    digest: bytes

    def body(self, kind: type[S]) -> S:
        """Raises `Malformed` when the body is no `kind` in its canonical form."""
        value: S = codec.decode(self.header.body, kind, limit_bytes=ENTRY_BYTES_MAX)
        if value.__struct_config__.tag != self.header.entry or codec.encode(value) != self.header.body:
            raise Malformed(f"entry {self.header.index} is not in its canonical form")
        return value


class Read(msgspec.Struct, frozen=True):
    """A whole chain that was checked."""

    chain: Chain
    entries: tuple[Entry, ...]
    end: End


def digest_of(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()


def seal_entry(chain: Chain, place: Place, statement: Statement, key: SigningKey, at_ms: int) -> bytes:
    """The next entry, signed."""
    header = Header(
        VERSION,
        chain.network,
        chain.kind,
        chain.id,
        place.index,
        place.predecessor,
        at_ms,
        key.public,
        str(statement.__struct_config__.tag),
        codec.encode(statement),
    )
    return _seal(_ENTRY_CONTEXT, codec.encode(header), key)


def seal_end(chain: Chain, entries: Sequence[bytes], key: SigningKey, at_ms: int) -> bytes:
    """How far the chain had come, signed. `entries` are all of them, in order."""
    end = End(VERSION, chain.network, chain.kind, chain.id, len(entries), digest_of(entries[-1]), at_ms, key.public)
    return _seal(_END_CONTEXT, codec.encode(end), key)


def _seal(context: bytes, signed: bytes, key: SigningKey) -> bytes:
    return codec.encode(_Signed(signed, key.sign(context + signed)))


def read(entries: Sequence[bytes], end: bytes, *, signers: Collection[bytes], kind: str) -> Read:
    """Checks every signature and that the chain is whole. `signers` are the keys that the reader trusts.

    What the entries say is for `kind`'s own reader to judge. Raises `ProtocolError`.
    """
    last: End = _open(_END_CONTEXT, end, End)
    _check_signer(last.signer, signers, "the end")
    _check_version(last.version, "the end")
    if last.kind != kind:
        raise NotGenuine(f"this is a receipt of a {last.kind}, not of a {kind}")
    if last.length != len(entries):
        raise NotGenuine(f"the chain had {last.length} entries when it was handed out; {len(entries)} are here")
    found, place = list[Entry](), Place()
    for raw in entries:
        entry = _read_entry(raw, place, last, signers)
        found.append(entry)
        place = Place(place.index + 1, entry.digest)
    if place.predecessor != last.head:
        raise NotGenuine("the last entry is not the one that the chain ended with")
    return Read(Chain(_network(last.network), last.kind, last.chain_id), tuple(found), last)


def claimed_signer(end: bytes) -> bytes:
    """The key that the end names: whose chain it claims to be, before anything is believed. Raises `ProtocolError`."""
    last: End = _open(_END_CONTEXT, end, End)
    return last.signer


def _read_entry(raw: bytes, place: Place, end: End, signers: Collection[bytes]) -> Entry:
    header: Header = _open(_ENTRY_CONTEXT, raw, Header)
    name = f"entry {place.index}"
    _check_version(header.version, name)
    _check_signer(header.signer, signers, name)
    if (header.network, header.kind, header.chain_id) != (end.network, end.kind, end.chain_id):
        raise NotGenuine(f"{name} belongs to another chain")
    if (header.index, header.predecessor) != (place.index, place.predecessor):
        raise NotGenuine(f"{name} does not follow the one before it")
    return Entry(header, digest_of(raw))


def _open(context: bytes, raw: bytes, kind: type[T]) -> T:
    """The signature is checked with the key that the statement names; whether to trust that key is the caller's."""
    wire = codec.decode(raw, _Signed, limit_bytes=ENTRY_BYTES_MAX)
    value: T = codec.decode(wire.signed, kind, limit_bytes=ENTRY_BYTES_MAX)
    if not verify(value.signer, context + wire.signed, wire.signature):
        raise BadSignature("a signature of the chain does not match")
    if codec.encode(wire) != raw or codec.encode(value) != wire.signed:
        raise Malformed("a statement of the chain is not in its canonical form")
    return value


def _check_signer(signer: bytes, signers: Collection[bytes], what: str) -> None:
    if signer not in signers:
        raise NotGenuine(f"{what} is signed by {signer.hex()}, which is no key that you trust")


def _check_version(version: int, what: str) -> None:
    if version != VERSION:
        raise WrongVersion(f"{what} is of version {version}; this program reads version {VERSION}")


def _network(text: str) -> Network:
    network: Network = codec.convert(text, Network)
    return network


# One chain as a file: lines of text ---------------------------------------------------------------------------------


def to_file(entries: Sequence[bytes], end: bytes) -> bytes:
    """A first line with the version, a line of base64 for each entry, and `end` with the end."""
    lines = [_MAGIC, *(_base64(raw) for raw in entries), f"end {_base64(end)}"]
    return "\n".join([*lines, ""]).encode()


def from_file(data: bytes) -> tuple[list[bytes], bytes]:
    """The entries and the end. Raises `Malformed` for anything that `to_file` would not have written."""
    try:
        magic, *lines = data.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise Malformed("it is not a receipt: a receipt is plain text") from None
    if not magic.startswith("qubix-receipt "):
        raise Malformed("it is not a receipt: the first line does not say so")
    if magic != _MAGIC:
        raise WrongVersion(f"its first line is {magic[:40]!r}; this program reads {_MAGIC!r}")
    if len(lines) < 3 or lines[-1] != "" or not lines[-2].startswith("end "):
        raise Malformed("the receipt is cut off: its end is missing")
    entries = [_from_base64(line) for line in lines[:-2]]
    end = _from_base64(lines[-2].removeprefix("end "))
    if to_file(entries, end) != data:
        raise Malformed("the receipt is not written in its canonical form")
    return entries, end


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _from_base64(line: str) -> bytes:
    try:
        return base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("a line of the receipt is not base64") from None
