# SPDX-License-Identifier: Apache-2.0
"""Proofs of reserves checked on the reader's own machine (trust.md M10)."""

from collections.abc import Awaitable, Callable

import msgspec

from qubix.errors import BadUsage, NotGenuine
from qubix_chain import identity
from qubix_protocol import reserves
from qubix_protocol.errors import ProtocolError
from qubix_protocol.reserves import Reserves, ReservesProof, ReservesView
from qubix_protocol.units import Network

_REMEDY = "Keep it as evidence: what the coordinator signed and what it answers do not agree."


def read(statement: str, coordinator_key: str, network: Network) -> Reserves:
    """What the coordinator signed. Raises `NotGenuine`."""
    try:
        return reserves.read_statement(statement, network=network, coordinator_key=bytes.fromhex(coordinator_key))
    except (ProtocolError, ValueError) as error:
        raise NotGenuine(f"the proof of reserves does not hold: {error}", remedy=_REMEDY) from error


def check(proof: ReservesProof, coordinator_key: str, network: Network) -> Reserves:
    """That the account is counted in the signed total, with its whole amount. Raises `NotGenuine`."""
    try:
        return reserves.check_proof(proof, network=network, coordinator_key=bytes.fromhex(coordinator_key))
    except (ProtocolError, ValueError) as error:
        raise NotGenuine(f"the account is not in the published total: {error}", remedy=_REMEDY) from error


def proof_from_file(data: bytes) -> ReservesProof:
    """Raises `BadUsage`."""
    try:
        return msgspec.json.decode(data, type=ReservesProof)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadUsage("--verify", f"this is no proof: {error}", "Give a file of `qubix wallet proof --out`") from None


async def on_chain(found: ReservesView, balance: Callable[[bytes], Awaitable[int]]) -> dict[str, int]:
    """What each identity has on the chain now, asked by `balance` of its public key."""
    return {one.identity: await balance(identity.decode(one.identity)) for one in found.holdings}
