# SPDX-License-Identifier: Apache-2.0
"""`qubix provider`: a provider's account, and its devices from afar."""

from pathlib import Path

import click
from msgspec import UNSET

from qubix import files
from qubix.cli import shown
from qubix.cli.output import console, json_option, market, print_json, print_pairs, print_table
from qubix.errors import BadUsage
from qubix_protocol.keys import SigningKey
from qubix_protocol.units import RATE_QU_PER_H_MAX
from qubix_protocol.wishes import FREE_S_MAX, DeviceWishView, RunningView

KEY_FILE = "node.key"
SEED_BYTES = 32


@click.group()
def provider() -> None:
    """The account of your nodes, and their devices from afar."""


@provider.command()
@click.option(
    "--key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The node's key (default: node.key in the data folder).",
)
@click.option(
    "--name", default="", metavar="TEXT", help="What this session is listed as (default: this machine's name)."
)
@json_option
def login(key_file: Path | None, name: str, as_json: bool) -> None:
    """Open the node's account by the node's own key. From then on `qubix wallet` is about that account: bind a wallet,
    withdraw, have earnings paid out by themselves. `qubix wallet logout` ends it."""
    with market() as client:
        path = key_file or client.settings.data_dir / KEY_FILE
        view = client.sign_in_by_key(_key(path), name=name)
    if as_json:
        told = {"account_id": view.account_id, "session_id": view.session.session_id}
        print_json({**told, "expires_ms": view.session.expires_ms})
        return
    ends = view.session.expires_ms
    print_pairs(
        [
            ("signed in", "by the node's key"),
            ("account", view.account_id),
            ("until", "" if ends is None else shown.moment(ends)),
            ("next", "qubix wallet earnings; qubix wallet login --bind; qubix wallet payout"),
        ]
    )


@provider.command("devices")
@json_option
def list_devices(as_json: bool) -> None:
    """Your devices: what runs there, what you wanted of them, and what is to be mended."""
    with market() as client:
        found = client.provider.devices()
    if as_json:
        print_json(found)
        return
    if not found.devices:
        console().print(
            "No device of this account has come to the market. `qubix provider login` opens a node's account."
        )
        return
    rows = [
        [
            one.listing_id,
            one.kind.titled(one.model),
            one.availability.value,
            f"{one.rate_qu_per_h:,}",
            ", ".join(_work(running) for running in one.running),
            "" if one.wish is None else _wish(one.wish),
            f"{len(one.mend)} to mend" if one.mend else "",
        ]
        for one in found.devices
    ]
    print_table(("device", "model", "state", "QU/h", "runs", "wanted", "self-test"), rows, right=frozenset({"QU/h"}))


def _work(running: RunningView) -> str:
    return "a rental" if running.rental_id is not None else f"{running.kernel} {running.fraction:.0%}"


def _wish(wish: DeviceWishView) -> str:
    wanted = [
        *([] if wish.rate_qu_per_h is None else [f"{wish.rate_qu_per_h:,} QU/h"]),
        *(["paused"] if wish.paused else []),
        *([] if wish.free_ms is None else [f"free at {shown.moment(wish.free_ms)}"]),
    ]
    said = f"{wish.state.value}: {wish.problem}" if wish.problem else wish.state.value
    return f"{', '.join(wanted) or 'as its node is set'} ({said})"


@provider.command("set")
@click.argument("listing_id", type=click.UUID, metavar="DEVICE")
@click.option("--rate", type=click.IntRange(0, RATE_QU_PER_H_MAX), metavar="QU", help="What an hour of it costs.")
@click.option("--own-rate", is_flag=True, help="What its node's own setting says.")
@click.option("--pause/--resume", "paused", default=None, help="Take nothing new; what runs goes on to its end.")
@click.option(
    "--free-in",
    type=click.IntRange(0, FREE_S_MAX),
    metavar="SECONDS",
    help="Maintenance: consumers are told, and by then it is free.",
)
@click.option("--maintenance-off", is_flag=True, help="Call the maintenance off.")
@click.option("--why", metavar="TEXT", help="What consumers are told about the maintenance.")
@json_option
def set_device(
    listing_id: object,
    rate: int | None,
    own_rate: bool,
    paused: bool | None,
    free_in: int | None,
    maintenance_off: bool,
    why: str | None,
    as_json: bool,
) -> None:
    """Say what DEVICE costs, pause it, or when it must be free. Its node carries that out as soon as it is reached."""
    if rate is not None and own_rate:
        raise BadUsage("--own-rate", "both a rate and the node's own were given", "Give one of them")
    if free_in is not None and maintenance_off:
        raise BadUsage("--maintenance-off", "a maintenance cannot be announced and called off", "Give one of them")
    if (rate, paused, free_in, why) == (None,) * 4 and not own_rate and not maintenance_off:
        raise BadUsage("--rate", "nothing is asked for", "Give --rate, --pause, --resume, --free-in, …")
    with market() as client:
        found = client.provider.wish(
            str(listing_id),
            rate_qu_per_h=None if own_rate else UNSET if rate is None else rate,
            paused=UNSET if paused is None else paused,
            free_in_s=None if maintenance_off else UNSET if free_in is None else free_in,
            why=UNSET if why is None else why,
        )
    if as_json:
        print_json(found)
        return
    assert found.wish is not None, "it was just said"
    print_pairs([("device", found.kind.titled(found.model)), ("wanted", _wish(found.wish))])


@provider.command("selftest")
@click.argument("listing_id", type=click.UUID, metavar="DEVICE")
@click.option("--quick", is_flag=True, help="Measure nothing.")
@json_option
def selftest_device(listing_id: object, quick: bool, as_json: bool) -> None:
    """Have DEVICE look at itself again, from afar. `qubix offers show` tells what it finds."""
    with market() as client:
        found = client.ask_selftest(str(listing_id), quick=quick)
    if as_json:
        print_json(found)
        return
    print_pairs([("device", found.listing_id), ("self-test", "asked for; it tells within a minute or two")])


def _key(path: Path) -> SigningKey:
    seed = files.read_private(path)
    if seed is None:
        raise BadUsage(
            "--key-file",
            f"there is no node's key at {path}",
            "Start `qubix node` once, or name the file (it is node.key in the node's data folder)",
        )
    if len(seed) != SEED_BYTES:
        raise BadUsage("--key-file", f"{path} holds no key", f"A node's key has {SEED_BYTES} bytes")
    return SigningKey(seed)
