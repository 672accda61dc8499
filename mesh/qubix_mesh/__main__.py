# SPDX-License-Identifier: Apache-2.0
"""`python -m qubix_mesh offers` (`qubix mesh offers`): the market straight from the nodes, coordinator or not."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import trio

from qubix_mesh import known
from qubix_mesh.errors import MeshError
from qubix_mesh.watch import Heard, Watch
from qubix_mesh.watch_settings import Settings, from_environment
from qubix_protocol import usage
from qubix_protocol.settings import SettingsError
from qubix_protocol.units import OFFER_S

NOTHING_HEARD: Final = 1
BAD_SETTINGS: Final = 2
SECONDS: Final = OFFER_S + 5
_DIALLED_MAX: Final = 6
_HEAD: Final = ("model", "kind", "memory", "QU/h", "state", "region", "country", "heard", "provider")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 1 when no offer was heard."""
    given = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    try:
        settings = from_environment()
        heard, now_s = trio.run(_listen, settings, given.seconds, tuple(given.region))
    except (SettingsError, MeshError) as error:
        print(f"qubix mesh: {error}", file=sys.stderr)
        return BAD_SETTINGS
    for line in (_json_lines if given.json else _table)(heard, now_s):
        print(line)
    return 0 if heard else NOTHING_HEARD


def _parser() -> argparse.ArgumentParser:
    parser = usage.parser(
        "qubix mesh", "See the market straight from the nodes, with or without a coordinator.", Settings
    )
    parser.add_argument("what", nargs="?", choices=("offers",), default="offers", help="what to see")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--region", action="append", default=[], help="only this region; may be said again")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"how long to listen; each node speaks every {OFFER_S:g} s"
    )
    return parser


async def _listen(settings: Settings, seconds: float, regions: tuple[str, ...]) -> tuple[tuple[Heard, ...], float]:
    """What was heard, and the time of `Heard.heard_s` at the end."""
    market, fresh = await known.find(
        settings.coordinator_url, settings.network, settings.folder / "market.json", key=settings.coordinator_key
    )
    if not fresh:
        print(f"{settings.coordinator_url} does not answer: looking for relays that are remembered", file=sys.stderr)
    watch = Watch(
        network=settings.network,
        coordinator=market.key,
        bootstrap=(*settings.bootstrap, *market.addresses[:_DIALLED_MAX]),
        remembered=settings.folder / "peers.json",
        regions=regions or market.regions,
        steady_s=trio.current_time,
    )
    with trio.move_on_after(seconds):
        await watch.run()
    if not watch.offers():
        seen = sum(peer.connected for peer in watch.peers())
        print(f"no offer was heard in {seconds:g} s from {seen} peers", file=sys.stderr)
    return watch.offers(), trio.current_time()


def _json_lines(heard: Sequence[Heard], now_s: float) -> list[str]:
    return [json.dumps(_fields(one, now_s)) for one in heard]


def _fields(one: Heard, now_s: float) -> dict[str, Any]:
    offer: dict[str, Any] = msgspec.to_builtins(one.offer)
    offer.pop("t", None)
    return {"provider": one.peer_id, "heard_s_ago": round(now_s - one.heard_s, 1), "stale": one.stale, **offer}


def _table(heard: Sequence[Heard], now_s: float) -> list[str]:
    rows = [_HEAD, *(_cells(one, now_s) for one in heard)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _cells(one: Heard, now_s: float) -> tuple[str, ...]:
    offer, device = one.offer, one.offer.device
    return (
        _plain(device.model),
        device.kind.value,
        f"{device.memory_bytes / 2**30:.0f} GiB",
        str(offer.rate_qu_per_h),
        offer.availability.value,
        _plain(offer.region),
        offer.country,
        f"{now_s - one.heard_s:.0f} s ago" + (" (stale)" if one.stale else ""),
        one.peer_id,
    )


def _plain(text: str) -> str:
    """A node's words on a terminal: no control characters of theirs."""
    return "".join(letter if letter.isprintable() else "·" for letter in text)


if __name__ == "__main__":
    sys.exit(main())
