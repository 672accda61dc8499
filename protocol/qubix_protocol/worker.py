# SPDX-License-Identifier: Apache-2.0
"""What a native worker is installed and updated from: files by their hashes, in a list that the coordinator signs."""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from qubix_protocol.api import Body, View
from qubix_protocol.errors import BadSignature, Malformed
from qubix_protocol.keys import verify
from qubix_protocol.messages import Message, Millis
from qubix_protocol.pairing import PairedDevice, PairingView
from qubix_protocol.units import Network

System = Literal["linux", "macos", "windows"]
_SIGNED: Final = b"qubix/worker/1\0"
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.+-]{1,200}$")]


class WorkerFile(View, frozen=True, kw_only=True):
    """At `/worker/files/{sha256}/{name}`, and never anything else there."""

    name: FileName
    sha256: Sha256
    size_bytes: int


class Manifest(View, frozen=True, kw_only=True):
    """`requirements` by lock, such as `linux-py3.11`: what pip installs, everything by hash. `wheels` are those among
    them that no index has."""

    network: Network
    version: str
    requirements: dict[str, WorkerFile]
    wheels: tuple[WorkerFile, ...]


class SignedManifest(View, frozen=True, kw_only=True):
    """`GET /worker/manifest`. `manifest` is JSON text; `signature` is the coordinator's, in hexadecimal digits."""

    manifest: str
    signature: str


class InstallerBody(Body, frozen=True, kw_only=True):
    """`POST /worker/installer`."""

    system: System


class InstallerView(View, frozen=True, kw_only=True):
    """The one file to start, with a pairing code in it: `repr` keeps it back."""

    name: str
    content_base64: str
    pairing: PairingView

    def __repr__(self) -> str:
        return f"InstallerView(name={self.name!r}, pairing={self.pairing!r})"


class NodeAsk(Message, frozen=True, kw_only=True, tag="node_ask"):
    """Node → coordinator by HTTPS: what do you know of me?"""

    clock_ms: Millis


class NodeSelfView(View, frozen=True, kw_only=True):
    """`POST /nodes/self`. `own_balance_qu` is what lies in the account that the node's key alone opens."""

    fingerprint: str
    paired: bool
    own_balance_qu: int
    devices: tuple[PairedDevice, ...] = ()


def signed_bytes(manifest: str) -> bytes:
    return _SIGNED + manifest.encode()


def believed(signed: SignedManifest, coordinator: bytes) -> Manifest:
    """Raises BadSignature, Malformed."""
    try:
        signature = bytes.fromhex(signed.signature)
    except ValueError:
        signature = b""
    if not verify(coordinator, signed_bytes(signed.manifest), signature):
        raise BadSignature("the list of files is not signed by the coordinator that this worker trusts")
    try:
        return msgspec.json.decode(signed.manifest, type=Manifest)
    except msgspec.MsgspecError as problem:
        raise Malformed(f"the list of files cannot be read: {problem}") from None
