# SPDX-License-Identifier: Apache-2.0
"""Nobody's word for a transaction is taken: id and signature follow from its bytes."""

from qubix_chain.rpc.errors import Untrusted
from qubix_chain.rpc.types import Archived
from qubix_chain.transaction import Transaction


def verify(claimed: Archived) -> Archived:
    """The same, now known to be what its source signed and to have this id. Raises Untrusted.

    `money_flew` and `timestamp_ms` stay the archive's word: no signature covers them.
    """
    try:
        built = Transaction.build(
            source=claimed.source,
            destination=claimed.destination,
            amount=claimed.amount_qu,
            tick=claimed.tick,
            input_type=claimed.input_type,
            payload=claimed.payload,
        )
        signed = Transaction.parse(built.with_signature(claimed.signature).to_bytes())
    except ValueError as problem:
        raise Untrusted(f"transaction {claimed.tx_id} is not genuine: {problem}") from None
    if signed.id != claimed.tx_id:
        raise Untrusted(f"transaction {claimed.tx_id} has really the id {signed.id}")
    return claimed
