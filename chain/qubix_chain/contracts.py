# SPDX-License-Identifier: Apache-2.0
"""Contract addresses, and the payload of QUTIL's SendToManyV1."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from qubix_chain.identity import NULL

CONTRACT_COUNT: Final = 28  # indexes 1 to 28 at epoch 227 (contract_def.h)
QX, QUTIL, MSVAULT = 1, 4, 11

SEND_TO_MANY_INPUT_TYPE: Final = 1
SEND_TO_MANY_OUTPUTS_MAX: Final = 25
SEND_TO_MANY_SIZE: Final = SEND_TO_MANY_OUTPUTS_MAX * (32 + 8)
SEND_TO_MANY_FEE_QU: Final = 10
AMOUNT_QU_MAX: Final = 10**15


@dataclass(frozen=True, slots=True)
class Output:
    """One payment of a SendToManyV1; `index` is its place among the 25, empty ones counted."""

    index: int
    destination: bytes
    amount: int


def contract_id(index: int) -> bytes:
    """The address of a contract: its index and zeros. Index 0 is the null identity."""
    if type(index) is not int or not 0 <= index < 2**64:
        raise ValueError(f"a contract's index is a whole number from 0 to 2^64 - 1, not {index!r}")
    return index.to_bytes(8, "little") + bytes(24)


def contract_index(public_key: bytes) -> int | None:
    """The contract whose address this is, known or not; None for an ordinary key and for the null identity."""
    return int.from_bytes(public_key[:8], "little") or None if public_key[8:] == bytes(24) else None


def send_to_many(outputs: Iterable[tuple[bytes, int]]) -> tuple[bytes, int]:
    """The payload, and the amount that the transaction must carry: the sum and the fee, exactly."""
    paid = list(outputs)
    if not 1 <= len(paid) <= SEND_TO_MANY_OUTPUTS_MAX:
        raise ValueError(f"SendToManyV1 pays 1 to {SEND_TO_MANY_OUTPUTS_MAX} identities at once, not {len(paid)}")
    for destination, amount in paid:
        if len(destination) != 32 or destination == NULL:
            raise ValueError("each destination is a public key of 32 bytes, and not the null identity")
        if type(amount) is not int or not 1 <= amount <= AMOUNT_QU_MAX:
            raise ValueError(f"each amount is a whole number of QU from 1 to 10^15, not {amount!r}")
    total = sum(amount for _, amount in paid) + SEND_TO_MANY_FEE_QU
    if total > AMOUNT_QU_MAX:
        raise ValueError(f"the amounts and the fee are {total} QU together, over the 10^15 of one transaction")
    empty = SEND_TO_MANY_OUTPUTS_MAX - len(paid)
    destinations = b"".join(destination for destination, _ in paid) + bytes(32 * empty)
    amounts = b"".join(amount.to_bytes(8, "little") for _, amount in paid) + bytes(8 * empty)
    return destinations + amounts, total


def parse_send_to_many(payload: bytes) -> tuple[Output, ...]:
    """The payments of a payload, in their order, places without a destination left out. Raises ValueError."""
    if len(payload) != SEND_TO_MANY_SIZE:
        raise ValueError(f"the payload of SendToManyV1 has {SEND_TO_MANY_SIZE} bytes, this one {len(payload)}")
    amounts_at = 32 * SEND_TO_MANY_OUTPUTS_MAX
    outputs = []
    for index in range(SEND_TO_MANY_OUTPUTS_MAX):
        destination = payload[32 * index : 32 * index + 32]
        at = amounts_at + 8 * index
        amount = int.from_bytes(payload[at : at + 8], "little", signed=True)
        if not 0 <= amount <= AMOUNT_QU_MAX:
            raise ValueError(f"output {index} has an amount of {amount} QU, outside 0 to 10^15")
        if destination != NULL:
            outputs.append(Output(index=index, destination=destination, amount=amount))
    return tuple(outputs)
