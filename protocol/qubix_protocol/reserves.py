# SPDX-License-Identifier: Apache-2.0
"""Proof of reserves (trust.md M10): what is owed to everybody, one signed total in which each finds their own part."""

from typing import Annotated

import msgspec
from msgspec import Meta

from qubix_protocol import merkle_sum
from qubix_protocol.api import View
from qubix_protocol.envelope import read_evidence
from qubix_protocol.errors import Malformed, NotGenuine
from qubix_protocol.merkle_sum import Node, Step
from qubix_protocol.messages import Amount, Id, Message, Millis, Short
from qubix_protocol.units import Network

HexText = Annotated[str, Meta(pattern=r"^([0-9a-f]{2})*$(?!\n)", max_length=1_000_000)]


class Holding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the network said is on one of the market's identities, as of a tick."""

    identity: Annotated[str, Meta(pattern=r"^[A-Z]{60}$(?!\n)")]
    role: Short
    balance_qu: Amount
    tick: Annotated[int, Meta(ge=0, le=2**53)]


class Reserves(Message, frozen=True, kw_only=True, tag="reserves"):
    """Coordinator → everybody. `root` and `owed_qu` are the tree's: every account with all that is its own (free, in
    holds, bonds and withdrawals under way), and the market's own fees and fund. `leaves` is a power of two."""

    network: Network
    root: Annotated[bytes, Meta(min_length=32, max_length=32)]
    owed_qu: Amount
    leaves: Annotated[int, Meta(ge=1, le=2**40)]
    holdings: Annotated[tuple[Holding, ...], Meta(max_length=4096)]
    at_ms: Millis

    @property
    def held_qu(self) -> int:
        return sum(one.balance_qu for one in self.holdings)


class ReservesView(View, frozen=True, kw_only=True):
    """`GET /reserves`: `statement` is the signed envelope in hex; the rest repeats it for reading."""

    statement: HexText
    network: Network
    root: str
    owed_qu: int
    held_qu: int
    leaves: int
    at_ms: int
    holdings: tuple[Holding, ...]


def view_of(statement: str, said: Reserves) -> ReservesView:
    """For reading, by what was signed and nothing else."""
    return ReservesView(
        statement=statement,
        network=said.network,
        root=said.root.hex(),
        owed_qu=said.owed_qu,
        held_qu=said.held_qu,
        leaves=said.leaves,
        at_ms=said.at_ms,
        holdings=said.holdings,
    )


class StepView(View, frozen=True, kw_only=True):
    digest: str
    sum_qu: int
    left: bool


class ReservesProof(View, frozen=True, kw_only=True):
    """`GET /reserves/proof`, and the file of `qubix wallet proof`: enough to find one's own part without help."""

    statement: HexText
    account_id: Id
    amount_qu: Amount
    salt: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
    path: Annotated[tuple[StepView, ...], Meta(max_length=merkle_sum.DEPTH_MAX)]


def read_statement(text: str, *, network: Network, coordinator_key: bytes) -> Reserves:
    """Raises `ProtocolError`."""
    said = read_evidence(bytes.fromhex(text), network=network, sender=coordinator_key).body(Reserves)
    if said.network != network:
        raise NotGenuine("the reserves are of another network")
    return said


def check_proof(proof: ReservesProof, *, network: Network, coordinator_key: bytes) -> Reserves:
    """That the account with this amount is counted in the signed total. Raises `ProtocolError`."""
    said = read_statement(proof.statement, network=network, coordinator_key=coordinator_key)
    own = merkle_sum.leaf(proof.account_id, proof.amount_qu, bytes.fromhex(proof.salt))
    merkle_sum.check(own, steps_of(proof.path), Node(said.root, said.owed_qu))
    return said


def steps_of(path: tuple[StepView, ...]) -> tuple[Step, ...]:
    try:
        return tuple(Step(Node(bytes.fromhex(one.digest), one.sum_qu), one.left) for one in path)
    except ValueError:
        raise Malformed("a digest on the path is not hex") from None
