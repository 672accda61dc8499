# SPDX-License-Identifier: Apache-2.0
"""Who this node is (an Ed25519 key on disk) and whom it obeys (the coordinator's key, pinned at enrolment)."""

import os
import stat
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from qubix_node.errors import CoordinatorChanged, Fatal, OtherNetwork, UnsafeKeyFile
from qubix_node.files import sync_folder, write_atomically
from qubix_protocol.keys import SigningKey
from qubix_protocol.units import Network

_SEED_BYTES: Final = 32


def load_or_create_key(path: Path) -> SigningKey:
    """The key in `path`, made from the operating system's randomness when there is none. Raises `UnsafeKeyFile`."""
    try:
        return _load(path)
    except FileNotFoundError:
        return _create(path)


def _load(path: Path) -> SigningKey:
    handle = os.open(path, os.O_RDONLY)
    with os.fdopen(handle, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_IMODE(mode) & 0o077:
            raise UnsafeKeyFile(f"{path} can be read by other users of this machine. Run: chmod 600 {path}")
        seed = file.read(_SEED_BYTES + 1)
    if len(seed) != _SEED_BYTES:
        raise UnsafeKeyFile(
            f"{path} holds no key (it must be {_SEED_BYTES} bytes). Restore it, or move it away to start as a new node."
        )
    return SigningKey(seed)


def _create(path: Path) -> SigningKey:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = SigningKey.generate()
    whole = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(key.seed)
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a rename, never replaces a key that another process has just made.
        os.link(whole, path)
    except FileExistsError:
        return _load(path)
    finally:
        whole.unlink(missing_ok=True)
    sync_folder(path.parent)
    return key


class Enrolment(msgspec.Struct, frozen=True, kw_only=True):
    """What the node remembers of its coordinator."""

    network: Network
    coordinator_url: str
    coordinator_key: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    account_id: str
    region: str
    gateways: tuple[str, ...] = ()
    relays: tuple[str, ...] = ()
    """Nodes that pass offers on, as the coordinator last knew them."""

    @property
    def key(self) -> bytes:
        return bytes.fromhex(self.coordinator_key)

    def check(self, *, network: Network, coordinator_key: str, path: Path) -> None:
        """Raises `OtherNetwork` or `CoordinatorChanged`, each with its remedy."""
        if network != self.network:
            raise OtherNetwork(
                f"this node was enrolled on the network {self.network!r}, not {network!r}. "
                "Set QUBIX_NETWORK back, or use another QUBIX_DATA_DIR."
            )
        if coordinator_key != self.coordinator_key:
            raise CoordinatorChanged(
                f"the coordinator's key is {coordinator_key[:16]}…, this node trusts {self.coordinator_key[:16]}…. "
                f"If the operator says that it was replaced, delete {path} and start again; "
                "otherwise check QUBIX_COORDINATOR_URL."
            )


def load_enrolment(path: Path) -> Enrolment | None:
    """None before the first enrolment. A damaged file is `Fatal`: forgetting whom to obey must be a person's choice."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Enrolment)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Fatal(f"{path} is damaged ({error}). Delete it to enrol again.") from error


def save_enrolment(path: Path, enrolment: Enrolment) -> None:
    write_atomically(path, msgspec.json.format(msgspec.json.encode(enrolment)) + b"\n")


class Incarnations:
    """The highest session number seen, on disk: a recording of an old session is refused (trust P1)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.last = int(path.read_text()) if path.exists() else 0

    def advance(self, incarnation: int) -> bool:
        """False when the number is not new. Blocks on the disk."""
        if incarnation <= self.last:
            return False
        write_atomically(self._path, b"%d\n" % incarnation)
        self.last = incarnation
        return True
