# SPDX-License-Identifier: Apache-2.0
"""What a consumer signed, held against what the request says (trust.md M6)."""

from typing import TypeVar
from uuid import UUID

from qubix_coordinator.accounts import order_keys
from qubix_coordinator.db.database import Tx
from qubix_coordinator.errors import InvalidInput
from qubix_coordinator.jobs.desk import Desk
from qubix_protocol.envelope import ANYONE, Opened, open_envelope
from qubix_protocol.errors import ProtocolError, WrongAudience
from qubix_protocol.messages import Message

M = TypeVar("M", bound=Message)


async def check(desk: Desk, tx: Tx, account_id: UUID, order: str, wanted: Message) -> bytes | None:
    """The signed order, once it is believed. Optional until the account has a key: from then on each request needs it,
    and what a key signed and the market took stays good when the key is revoked."""
    if not order:
        await order_keys.refuse_unsigned(tx, account_id)
        return None
    opened = _opened(desk, order)
    _compare(_body(opened, type(wanted)), wanted)
    await order_keys.use(tx, account_id, opened.header.sender)
    return opened.raw


def _opened(desk: Desk, text: str) -> Opened:
    try:
        raw = bytes.fromhex(text)
        opened = open_envelope(raw, network=desk.network, audience=desk.key.public, now_ms=desk.now_ms())
        if opened.header.audience == ANYONE:
            raise WrongAudience("it is addressed to anyone")
    except (ProtocolError, ValueError) as problem:
        raise InvalidInput(
            "order", f"the order cannot be accepted: {problem}", "Sign it anew, addressed to this coordinator"
        ) from problem
    return opened


def _body(opened: Opened, kind: type[M]) -> M:
    try:
        return opened.body(kind)
    except ProtocolError as problem:
        raise InvalidInput("order", f"this is no order: {problem}", f"Sign an {kind.__name__} statement") from problem


def _compare(signed: Message, wanted: Message) -> None:
    for field in wanted.__struct_fields__:
        if getattr(signed, field) != getattr(wanted, field):
            raise InvalidInput(
                f"order.{field}", "what was signed is not what the request says", "Sign the request that you send"
            )
