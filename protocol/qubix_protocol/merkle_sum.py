# SPDX-License-Identifier: Apache-2.0
"""A Merkle-sum tree: one digest and one sum that stand for many amounts, and a path from each of them to both.

Each node commits to its children's digests *and* sums, and no sum is negative or too large, so whoever finds an amount
in the tree knows that the total counts it whole: nothing can be hidden behind a negative leaf. Pure; trust.md M10.
"""

import hashlib
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from qubix_protocol.errors import Malformed, NotGenuine
from qubix_protocol.messages import Digest

SUM_MAX: Final = 2**63 - 1
LEAVES_MIN: Final = 16
DEPTH_MAX: Final = 40
_LEAF: Final = b"qubix/reserves-leaf/1\0"
_NODE: Final = b"qubix/reserves-node/1\0"
_PADDING: Final = b"qubix/reserves-padding/1\0"
_ORDER: Final = b"qubix/reserves-order/1\0"
Sum = Annotated[int, Meta(ge=0, le=SUM_MAX)]


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    digest: Digest
    sum_qu: Sum


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sibling on the way up; `left`: it stands on the left."""

    sibling: Node
    left: bool


def leaf(owner: str, amount_qu: int, salt: bytes) -> Node:
    """`salt` is 32 random bytes that only the owner is told: without it nobody can try amounts against the digest."""
    return Node(hashlib.sha256(_LEAF + salt + _amount(amount_qu) + owner.encode()).digest(), amount_qu)


def parent(left: Node, right: Node) -> Node:
    """Raises `Malformed` for a sum that is out of bounds."""
    halves = left.digest + _amount(left.sum_qu) + right.digest + _amount(right.sum_qu)
    total = left.sum_qu + right.sum_qu
    _amount(total)
    return Node(hashlib.sha256(_NODE + halves).digest(), total)


def _amount(amount_qu: int) -> bytes:
    if not 0 <= amount_qu <= SUM_MAX:
        raise Malformed(f"a sum of {amount_qu} QU is out of bounds")
    return amount_qu.to_bytes(8, "big")


class Tree:
    """Leaves stand in an order that follows from `secret`, filled up to a power of two with leaves of nothing that
    nobody can tell from an account that has nothing: how many accounts there are is known no better than that. A path
    shows the sums beside it, hence one stranger's amount, and never whose it is."""

    def __init__(self, leaves: Sequence[Node], secret: bytes) -> None:
        size = max(LEAVES_MIN, 1 << max(0, len(leaves) - 1).bit_length())
        filled = [*leaves, *(_padding(secret, at) for at in range(size - len(leaves)))]
        order = sorted(range(size), key=lambda at: hashlib.sha256(_ORDER + secret + filled[at].digest).digest())
        self._place = {at: place for place, at in enumerate(order)}
        self._rows = [[filled[at] for at in order]]
        while len(self._rows[-1]) > 1:
            row = self._rows[-1]
            self._rows.append([parent(row[at], row[at + 1]) for at in range(0, len(row), 2)])

    @property
    def root(self) -> Node:
        return self._rows[-1][0]

    @property
    def size(self) -> int:
        return len(self._rows[0])

    def path(self, at: int) -> tuple[Step, ...]:
        """From the leaf that was given as number `at` up to the root."""
        place, steps = self._place[at], []
        for row in self._rows[:-1]:
            other = place ^ 1
            steps.append(Step(row[other], other < place))
            place //= 2
        return tuple(steps)


def _padding(secret: bytes, at: int) -> Node:
    return Node(hashlib.sha256(_PADDING + secret + at.to_bytes(8, "big")).digest(), 0)


def check(found: Node, path: Sequence[Step], root: Node) -> None:
    """That the leaf is counted in the root. Raises `NotGenuine`."""
    if len(path) > DEPTH_MAX:
        raise NotGenuine("the path is longer than any tree")
    node = found
    for step in path:
        pair = (step.sibling, node) if step.left else (node, step.sibling)
        try:
            node = parent(*pair)
        except Malformed as error:
            raise NotGenuine(str(error)) from error
    if node != root:
        raise NotGenuine("the path does not lead to the published root and total")
