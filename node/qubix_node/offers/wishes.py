# SPDX-License-Identifier: Apache-2.0
"""What the owner of this node's devices wants of them from afar, as the coordinator told it.

Kept in a small file, so that a restart forgets nothing. A price holds until its owner says another one, here or there:
whoever changes the setting or says `--set-rate` on this machine afterwards means that.
"""

import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Final

import msgspec
import trio
from msgspec import Meta

from qubix_node import files
from qubix_protocol.messages import Message, Millis, Rate, Short
from qubix_protocol.wishes import DeviceWish, DeviceWishTaken, Revision

log = logging.getLogger("qubix_node")
NAME: Final = "wishes.json"
_BYTES_MAX: Final = 1024 * 1024
_WAITING_MAX: Final = 64
UNKNOWN: Final = "this node has no such device now"
NOT_KEPT: Final = "this node cannot write to its folder, and would forget it"


class Kept(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`instead_of`: what was said of the price on this machine when the wish came."""

    revision: Revision
    rate_qu_per_h: Rate | None
    paused: bool
    free_ms: Millis | None
    why: Short
    instead_of: Annotated[str, Meta(max_length=1000)]


class Wishes:
    """`devices` are those that are here; `local` is all that was said of the price on this machine, as one word;
    `rate` is what a device asks; `changed` is called when there is news for the market."""

    def __init__(
        self,
        folder: Path,
        *,
        say: Callable[[Message], None],
        devices: Callable[[], Collection[str]],
        local: Callable[[], str],
        rate: Callable[[str], int],
        changed: Callable[[], None],
    ) -> None:
        self._path = folder / NAME
        self._say, self._devices, self._local, self._rate, self._changed = say, devices, local, rate, changed
        self._kept = self._read()
        self._send, self._heard = trio.open_memory_channel[DeviceWish](_WAITING_MAX)

    def rate_of(self, device_id: str) -> int | None:
        """None: this machine's own word holds."""
        kept = self._kept.get(device_id)
        return None if kept is None or kept.instead_of != self._local() else kept.rate_qu_per_h

    def closed(self, device_id: str) -> bool:
        """Nothing new is begun there."""
        kept = self._kept.get(device_id)
        return kept is not None and (kept.paused or kept.free_ms is not None)

    def free_ms(self, device_id: str) -> tuple[int, str] | None:
        """When it must be free, by the coordinator's clock, and why."""
        kept = self._kept.get(device_id)
        return None if kept is None or kept.free_ms is None else (kept.free_ms, kept.why)

    def command(self, message: Message) -> bool:
        """One believed statement of the coordinator; False when it is not about wishes. One too many is told again."""
        if not isinstance(message, DeviceWish):
            return False
        try:
            self._send.send_nowait(message)
        except trio.WouldBlock:
            log.warning("wish.too_many", extra={"device": message.device_id})
        return True

    async def run(self) -> None:
        """Until cancelled. It is on the disk before it is said to be done."""
        async for wish in self._heard:
            problem = await self._take(wish)
            if problem:
                log.warning("wish.refused", extra={"device": wish.device_id, "reason": problem})
            rate = self._rate(wish.device_id)
            taken = DeviceWishTaken(
                device_id=wish.device_id, revision=wish.revision, problem=problem, rate_qu_per_h=rate
            )
            self._say(taken)

    async def _take(self, wish: DeviceWish) -> str:
        known = self._kept.get(wish.device_id)
        if known is not None and known.revision >= wish.revision:
            return ""
        if wish.device_id not in self._devices():
            return UNKNOWN
        local = self._local()
        if known is not None and known.rate_qu_per_h == wish.rate_qu_per_h:
            # It is about something else: a price that was set here since stays.
            local = known.instead_of
        kept = Kept(
            revision=wish.revision,
            rate_qu_per_h=wish.rate_qu_per_h,
            paused=wish.paused,
            free_ms=wish.free_ms,
            why=wish.why,
            instead_of=local,
        )
        after = {**self._kept, wish.device_id: kept}
        try:
            await trio.to_thread.run_sync(files.write_atomically, self._path, msgspec.json.encode(after))
        except OSError as problem:
            log.warning("wish.not_kept", extra={"reason": str(problem)})
            return NOT_KEPT
        self._kept = after
        log.info(
            "wish.taken",
            extra={"device": wish.device_id, "qu_per_h": wish.rate_qu_per_h, "paused": wish.paused},
        )
        self._changed()
        return ""

    def _read(self) -> dict[str, Kept]:
        try:
            return msgspec.json.decode(self._path.read_bytes()[:_BYTES_MAX], type=dict[str, Kept])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as problem:
            log.warning("wish.unreadable", extra={"reason": str(problem)})
            return {}
