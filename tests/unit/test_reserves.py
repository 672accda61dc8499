# SPDX-License-Identifier: Apache-2.0
"""M10: whoever's amount was changed, hidden or left out notices by their own proof, or the total does."""

import hashlib
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from qubix.cli import main
from qubix_protocol import merkle_sum
from qubix_protocol.envelope import ANYONE, seal
from qubix_protocol.errors import Malformed, NotGenuine, ProtocolError
from qubix_protocol.keys import SigningKey
from qubix_protocol.merkle_sum import LEAVES_MIN, SUM_MAX, Node, Tree, check, leaf, parent
from qubix_protocol.reserves import Reserves, ReservesProof, StepView, check_proof

AMOUNTS = st.lists(st.integers(0, 10**15), min_size=1, max_size=40)
SECRET = bytes(32)


def salt(at: int) -> bytes:
    return hashlib.sha256(at.to_bytes(4, "big")).digest()


def leaves(amounts: list[int]) -> list[Node]:
    return [leaf(f"account {at}", amount, salt(at)) for at, amount in enumerate(amounts)]


def counted(tree: Tree, at: int, own: Node, root: Node) -> bool:
    try:
        check(own, tree.path(at), root)
    except NotGenuine:
        return False
    return True


@given(AMOUNTS)
def test_everybody_finds_their_own_part_and_the_total_is_the_sum(amounts: list[int]) -> None:
    tree = Tree(leaves(amounts), SECRET)
    assert tree.root.sum_qu == sum(amounts)
    assert all(counted(tree, at, own, tree.root) for at, own in enumerate(leaves(amounts)))
    assert tree.size >= max(LEAVES_MIN, len(amounts))
    assert tree.size & (tree.size - 1) == 0


@given(AMOUNTS, st.data())
def test_a_changed_balance_is_noticed_by_its_owner(amounts: list[int], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(amounts) - 1))
    other = data.draw(st.integers(0, 10**15).filter(lambda amount: amount != amounts[at]))
    lied = [*amounts[:at], other, *amounts[at + 1 :]]
    tree = Tree(leaves(lied), SECRET)
    assert not counted(tree, at, leaves(amounts)[at], tree.root)
    assert tree.root != Tree(leaves(amounts), SECRET).root


@given(AMOUNTS.filter(lambda amounts: len(amounts) > 1), st.data())
def test_an_account_that_was_left_out_has_no_path(amounts: list[int], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(amounts) - 1))
    nodes = leaves(amounts)
    tree = Tree([*nodes[:at], *nodes[at + 1 :]], SECRET)
    assert not any(counted(tree, other, nodes[at], tree.root) for other in range(len(amounts) - 1))


@given(AMOUNTS, st.data())
def test_no_step_of_a_path_can_be_changed(amounts: list[int], data: st.DataObject) -> None:
    tree, at = Tree(leaves(amounts), SECRET), data.draw(st.integers(0, len(amounts) - 1))
    path = list(tree.path(at))
    step = data.draw(st.integers(0, len(path) - 1))
    sibling = path[step].sibling
    lie = data.draw(st.sampled_from(["digest", "sum", "side", "gone"]))
    if lie == "digest":
        sibling = Node(hashlib.sha256(sibling.digest).digest(), sibling.sum_qu)
    elif lie == "sum":
        sibling = Node(sibling.digest, sibling.sum_qu + 1)
    changed = merkle_sum.Step(sibling, path[step].left ^ (lie == "side"))
    lied = [*path[:step], *([] if lie == "gone" else [changed]), *path[step + 1 :]]
    with pytest.raises(NotGenuine):
        check(leaves(amounts)[at], lied, tree.root)


@given(st.integers(1, 10**15))
def test_no_negative_leaf_can_hide_what_is_owed(hidden: int) -> None:
    """Neither as a leaf, nor as a node on somebody's path."""
    with pytest.raises(Malformed):
        leaf("account", -hidden, salt(0))
    rich, negative = leaf("rich", 10**15, salt(1)), Node(bytes(32), -hidden)
    with pytest.raises(Malformed):
        parent(rich, negative)
    with pytest.raises(NotGenuine):
        check(rich, [merkle_sum.Step(negative, False)], Node(bytes(32), 10**15 - hidden))


def test_a_sum_that_overflows_is_no_tree() -> None:
    with pytest.raises(Malformed):
        parent(leaf("a", SUM_MAX, salt(0)), leaf("b", 1, salt(1)))


def test_order_and_number_of_accounts_do_not_show() -> None:
    nodes = leaves([5] * 5)
    tree, again, other = Tree(nodes, SECRET), Tree(nodes, SECRET), Tree(nodes, bytes([1] * 32))
    assert tree.root == again.root != other.root
    assert tree.size == Tree(leaves([5] * 16), SECRET).size
    places = [next(at for at, node in enumerate(tree._rows[0]) if node == own) for own in nodes]
    assert places != sorted(places)
    assert sum(node.sum_qu for node in tree._rows[0]) == 25


def test_a_proof_is_what_the_coordinator_signed() -> None:
    key = SigningKey.generate()
    account = "00000000-0000-0000-0000-000000000001"
    nodes = [leaf(account, 7, salt(0)), *leaves([1, 2, 3])]
    tree = Tree(nodes, SECRET)

    def signed(by: SigningKey, **lie: int) -> str:
        said = Reserves(
            network="devnet",
            root=tree.root.digest,
            **({"owed_qu": tree.root.sum_qu, "leaves": tree.size, "at_ms": 1} | lie),
            holdings=(),
        )
        return seal(said, by, network="devnet", audience=ANYONE, incarnation=0, counter=0, expires_ms=1).hex()

    path = tuple(
        StepView(digest=one.sibling.digest.hex(), sum_qu=one.sibling.sum_qu, left=one.left) for one in tree.path(0)
    )
    proof = ReservesProof(statement=signed(key), account_id=account, amount_qu=7, salt=salt(0).hex(), path=path)
    assert check_proof(proof, network="devnet", coordinator_key=key.public).owed_qu == 13
    for statement in (signed(SigningKey.generate()), signed(key, owed_qu=12)):
        lied = ReservesProof(statement=statement, account_id=account, amount_qu=7, salt=salt(0).hex(), path=path)
        with pytest.raises(ProtocolError):
            check_proof(lied, network="devnet", coordinator_key=key.public)
    with pytest.raises(ProtocolError):
        check_proof(proof, network="main", coordinator_key=key.public)


def test_a_kept_proof_that_does_not_hold_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    """Not what is wrong with the last network that was tried."""
    key, account = SigningKey.generate(), "00000000-0000-0000-0000-000000000001"
    tree = Tree([leaf(account, 7, salt(0)), *leaves([1, 2])], SECRET)
    said = Reserves(
        network="devnet", root=tree.root.digest, owed_qu=tree.root.sum_qu, leaves=tree.size, holdings=(), at_ms=1
    )
    raw = seal(said, key, network="devnet", audience=ANYONE, incarnation=0, counter=0, expires_ms=1)
    path = tuple(
        StepView(digest=one.sibling.digest.hex(), sum_qu=one.sibling.sum_qu, left=one.left) for one in tree.path(0)
    )
    for amount_qu, status, words in ((7, 0, "is counted with 7 QU"), (8, 1, "does not lead to the published root")):
        proof = ReservesProof(
            statement=raw.hex(), account_id=account, amount_qu=amount_qu, salt=salt(0).hex(), path=path
        )
        file = tmp_path / f"{amount_qu}.json"
        file.write_bytes(msgspec.json.encode(proof))
        asked = ["wallet", "proof", "--verify", str(file), "--coordinator-key", key.public.hex()]
        found = CliRunner().invoke(main, asked, env={"QUBIX_DATA_DIR": str(tmp_path)})
        assert found.exit_code == status, found.output
        assert words in " ".join(found.output.split())
