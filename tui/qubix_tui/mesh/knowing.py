# SPDX-License-Identifier: Apache-2.0
"""Where the mesh is and whose word counts: by the settings, by the coordinator while it is up, by what it said."""

from pathlib import Path
from typing import Final

import msgspec

from qubix import pins
from qubix.async_client import AsyncClient
from qubix.errors import BadUsage, QubixError
from qubix.files import read_private, replace_private
from qubix_protocol.api import NetworkView
from qubix_protocol.units import Network
from qubix_tui.mesh.heard import Known
from qubix_tui.settings import Settings

NETWORK_FILE: Final = "network.json"
PEERS_FILE: Final = "mesh.peers"
LOCAL: Final = "local"


class Remembered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a coordinator said of the network, by its address."""

    network: Network
    coordinator_key: str
    gateways: tuple[str, ...]
    """And relays: whoever may be dialled first."""
    regions: tuple[str, ...]


def merged(settings: Settings, said: Remembered | None) -> Known:
    """The settings come first. Raises `BadUsage` while no coordinator's key is known: then nobody can be believed."""
    key = settings.coordinator_key or (said.coordinator_key if said else "")
    if not key:
        raise BadUsage(
            "QUBIX_COORDINATOR_KEY",
            "no coordinator was met from here yet, so it is not known whose certificates to believe",
            "Start once while it is up, or set QUBIX_COORDINATOR_KEY to its key.",
        )
    bootstrap = dict.fromkeys((*settings.bootstrap, *(said.gateways if said else ())))
    regions = settings.regions or tuple(dict.fromkeys((*(said.regions if said else ()), LOCAL)))
    return Known(said.network if said else settings.network, key, tuple(bootstrap), regions)


async def known(client: AsyncClient, settings: Settings, folder: Path) -> Known:
    """Asks the coordinator, and remembers its answer for when it does not. Raises `BadUsage`, `KeyFileRefused`,
    `CoordinatorChanged`."""
    aside = client.session.port.aside
    try:
        said: Remembered | None = _said(await client.session.get("/network", NetworkView))
    except QubixError:
        said = await aside(lambda: remembered(settings, folder))
    else:
        assert said is not None
        kept = said
        await client.network()  # its key is the one that was pinned, or this is refused
        await aside(lambda: remember(settings, folder, kept))
    return merged(settings, said)


def _said(view: NetworkView) -> Remembered:
    return Remembered(view.network, view.coordinator_key, (*view.gateways, *view.relays), view.regions)


def remembered(settings: Settings, folder: Path) -> Remembered | None:
    """For this address: what was said last, or the key that was pinned at least. A file that cannot be read is none."""
    content = read_private(folder / NETWORK_FILE)
    try:
        by_url = msgspec.json.decode(content or b"{}", type=dict[str, Remembered])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        by_url = {}
    if settings.url in by_url:
        return by_url[settings.url]
    pin = pins.pinned(settings.data_dir, settings.url)
    return None if pin is None else Remembered(pin.network, pin.coordinator_key, (), ())


def remember(settings: Settings, folder: Path, said: Remembered) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / NETWORK_FILE
    try:
        before = msgspec.json.decode(read_private(path) or b"{}", type=dict[str, Remembered])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        before = {}
    if before.get(settings.url) != said:
        replace_private(path, msgspec.json.format(msgspec.json.encode(before | {settings.url: said})))
