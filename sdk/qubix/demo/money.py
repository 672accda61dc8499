# SPDX-License-Identifier: Apache-2.0
"""The demonstration's money: a wallet, the devnet's faucet, a signed deposit, a signed withdrawal."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, TypeVar

import msgspec

from qubix import onchain
from qubix.client import Client
from qubix.errors import NotFinished, NotFound, NotGenuine
from qubix.reserves import on_chain
from qubix_chain import crypto, identity, messages
from qubix_chain.rpc import Client as Network
from qubix_chain.rpc.errors import ChainError, RefusedByNetwork
from qubix_chain.transaction import Transaction
from qubix_protocol.reserves import ReservesProof
from qubix_protocol.withdrawals import FINAL_WITHDRAWAL_STATES, WithdrawalState, WithdrawalView

T = TypeVar("T")
FAUCET_QU: Final = 2_000_000
DEPOSIT_QU: Final = 1_000_000
WITHDRAWAL_QU: Final = 250_000
STEP_S: Final = 120.0
_LOOK_EACH_S: Final = 0.1
_TRIES_MAX: Final = 5
_TICKS_AHEAD: Final = 6
"""The list of a tick is fixed two ticks before it; where ticks are this machine's own, a few more are enough."""


class Movement(msgspec.Struct, frozen=True, kw_only=True):
    """One transaction on the network, proven by what the network itself says afterwards."""

    tx_id: str
    tick: int
    amount_qu: int
    source: str
    destination: str


class Backing(msgspec.Struct, frozen=True, kw_only=True):
    """What the market owes to everybody, and what the network says is there for it."""

    owed_qu: int
    on_chain_qu: int
    identities: tuple[str, ...]
    root: str
    own_qu: int


class DemoWallet:
    """A new Qubic wallet, kept in memory alone: it signs texts and payments, and is gone at the end."""

    def __init__(self) -> None:
        self._subseed = crypto.subseed(crypto.new_seed())
        self.key: Final = crypto.public_key(crypto.private_key(self._subseed))

    @property
    def identity(self) -> str:
        return identity.encode(self.key)

    def sign_message(self, text: str, /) -> bytes:
        return messages.sign(self._subseed, self.key, text)

    def pay(self, destination: bytes, amount_qu: int, tick: int) -> Transaction:
        built = Transaction.build(source=self.key, destination=destination, amount=amount_qu, tick=tick)
        return built.sign(self._subseed)


class Money:
    """Raises `NotFinished` when something takes far too long, `NotGenuine` when the network does not bear out what the
    market says."""

    def __init__(self, client: Client, qubic_url: str) -> None:
        self._client, self._url = client, qubic_url
        self.wallet = DemoWallet()
        self._refusal = ""

    def fund_wallet(self) -> Movement:
        """By the faucet, which exists on a devnet alone."""
        settings = replace(self._client.settings, qubic_url=(self._url,))
        tx_id = asyncio.run(onchain.faucet(settings, "devnet", self.wallet.identity, FAUCET_QU))
        return self._proven(tx_id, "the faucet's payment")

    def deposit(self) -> tuple[Movement, str]:
        """The wallet pays the account's own deposit identity; done once the market has credited it. Also its state."""
        to = identity.decode(self._client.deposit_identity().identity)
        tx_id = next((tx_id for _ in range(_TRIES_MAX) if (tx_id := self._paid(to))), None)
        if tx_id is None:
            told = f" ({self._refusal})" if self._refusal else ""
            raise NotFinished(
                f"{_TRIES_MAX} deposits did not run in their ticks{told}", remedy="Try when less runs here."
            )
        found = self._wait(
            "the deposit's credit",
            lambda: next(
                (one for one in self._client.deposits().deposits if one.tx_id == tx_id and one.state != "seen"), None
            ),
        )
        return self._proven(tx_id, "the deposit"), found.state

    def _paid(self, to: bytes) -> str | None:
        """The transaction that ran; None when it was late, since the machine was busy while it was signed: it never
        runs, and another one may be signed."""

        async def send(network: Network) -> Transaction:
            tick = (await network.tick_info()).tick + _TICKS_AHEAD
            signed = self.wallet.pay(to, DEPOSIT_QU, tick)
            try:
                await network.broadcast(signed.to_bytes())
            except RefusedByNetwork as error:
                self._refusal = str(error)
            return signed

        signed = self._ask(send)
        self._wait("the deposit's tick", lambda: self._ask(_archived_tick) >= signed.tick)
        ran = self._ask(lambda network: network.transaction_by_hash(signed.id))
        return None if ran is None else signed.id

    def withdraw(self) -> tuple[Movement, WithdrawalView]:
        """Back to the wallet, which is bound to the account by a signature first."""
        self._client.bind_wallet(self.wallet)
        self._client.add_address(self.wallet.identity, "demo")
        self._wait("the sweep of the deposit", lambda: self._client.withdrawable().withdrawable_qu >= WITHDRAWAL_QU)
        before_qu = self._ask(lambda network: network.balance(self.wallet.key)).amount_qu
        asked = self._client.withdraw(self.wallet.identity, WITHDRAWAL_QU)
        ended = self._wait("the withdrawal", lambda: self._final(asked.withdrawal_id))
        if ended.state is not WithdrawalState.CONFIRMED or ended.tx_id is None:
            raise NotGenuine(f"the withdrawal ended as {ended.state}: {ended.text}")
        movement = self._proven(ended.tx_id, "the withdrawal")
        now_qu = self._ask(lambda network: network.balance(self.wallet.key)).amount_qu
        if now_qu != before_qu + WITHDRAWAL_QU:
            raise NotGenuine(f"the wallet holds {now_qu:,} QU after the withdrawal, not {before_qu + WITHDRAWAL_QU:,}")
        return movement, ended

    def reserves(self) -> Backing:
        """The published proof, once it counts what the account has now: the account's own leaf found in the signed
        total, and the identities' balances asked of the network itself."""
        balance = self._client.balance()
        own_qu = balance.available_qu + balance.held_qu
        own = self._wait("a proof of reserves of now", lambda: self._own_part(own_qu))
        found = self._wait("the published reserves", self._client.reserves)
        there = self._ask(
            lambda network: on_chain(found, lambda key: _amount_qu(network, key)),
        )
        if sum(there.values()) < found.owed_qu:
            raise NotGenuine(f"{found.owed_qu:,} QU are owed and {sum(there.values()):,} are on the chain")
        return Backing(
            owed_qu=found.owed_qu,
            on_chain_qu=sum(there.values()),
            identities=tuple(there),
            root=found.root,
            own_qu=own.amount_qu,
        )

    def _own_part(self, own_qu: int) -> ReservesProof | None:
        """Checked against the coordinator's signature by the client. None while the newest is an older one."""
        try:
            found = self._client.reserves_proof()
        except NotFound:
            return None
        return found if found.amount_qu == own_qu else None

    def _final(self, withdrawal_id: str) -> WithdrawalView | None:
        found = self._client.withdrawal(withdrawal_id)
        return found if found.state in FINAL_WITHDRAWAL_STATES else None

    def _proven(self, tx_id: str, what: str) -> Movement:
        """As the network's archive tells it: id and signature are checked here."""
        found = self._wait(what, lambda: self._ask(lambda network: network.transaction_by_hash(tx_id)))
        if not found.money_flew:
            raise NotGenuine(f"{what} ({tx_id}) moved nothing")
        return Movement(
            tx_id=tx_id,
            tick=found.tick,
            amount_qu=found.amount_qu,
            source=identity.encode(found.source),
            destination=identity.encode(found.destination),
        )

    def _ask(self, question: Callable[[Network], Awaitable[T]]) -> T:
        async def asked() -> T:
            network = Network(self._url, weekly=False)
            try:
                return await question(network)
            finally:
                await network.close()

        try:
            return asyncio.run(asked())
        except ChainError as problem:
            raise NotFinished(f"the Qubic network does not answer: {problem}", remedy="See the devnet's log.") from None

    def _wait(self, what: str, look: Callable[[], T | None]) -> T:
        end = time.monotonic() + STEP_S
        while not (found := look()):
            if time.monotonic() > end:
                raise NotFinished(f"{what} did not come within {STEP_S:g} s", remedy="See the chain process's log.")
            time.sleep(_LOOK_EACH_S)
        return found


async def _archived_tick(network: Network) -> int:
    return (await network.last_processed_tick()).tick


async def _amount_qu(network: Network, public_key: bytes) -> int:
    return (await network.balance(public_key)).amount_qu
