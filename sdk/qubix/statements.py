# SPDX-License-Identifier: Apache-2.0
"""What the order key says to this market: an order, or a change of keys."""

from qubix.session import Session
from qubix.wallet import Wallet
from qubix_protocol.messages import Message


async def signed(session: Session, wallet: Wallet, message: Message) -> str:
    """The statement's envelope in hex, for this market alone and by its clock."""
    network = await session.network()
    sealed = wallet.sign_statement(
        message,
        network=network.network,
        coordinator_key=bytes.fromhex(network.coordinator_key),
        clock_ms=session.clock_ms(),
    )
    return sealed.hex()
