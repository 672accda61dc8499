# SPDX-License-Identifier: Apache-2.0
"""The Qubic network as a wallet meets it: what an identity holds, a payment, and what became of it.

A payment names the tick that it runs in and can run in no other. So it is sent as often as it takes, always the same
bytes; and another one is never signed while the first may still run.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import httpx

from qubix.errors import BadUsage, NetworkUnreachable, PaymentRefused
from qubix.settings import Settings
from qubix.wallet import Wallet
from qubix_chain import identity
from qubix_chain.contracts import AMOUNT_QU_MAX
from qubix_chain.rpc import Client, FailOver, Source
from qubix_chain.rpc.errors import ChainError, NotYetProcessed, RefusedByNetwork, SkippedTick
from qubix_chain.transaction import Transaction
from qubix_protocol.units import Network

URLS: Final[dict[Network, str]] = {
    "devnet": "http://127.0.0.1:8610",
    "test": "https://testnet-rpc.qubic.org",
    "main": "https://rpc.qubic.org",
}
"""Where each network answers unless QUBIX_QUBIC_URL says otherwise; the devnet, on its own machine."""
FAUCET_S: Final = 30.0
TICKS_AHEAD: Final = 12
"""The list of a tick is fixed two ticks before it; the network's documentation advises ten and more."""


class Fate(StrEnum):
    """What became of a payment; each is final."""

    RAN = "ran"
    MOVED_NOTHING = "moved_nothing"
    """Its tick listed it, and the source did not hold the amount by then."""
    NOT_RUN = "not_run"
    """Its tick is over without it."""


@dataclass(frozen=True, slots=True)
class Payment:
    """A signed payment. Who has its bytes can send it, and nothing else."""

    signed: Transaction

    @property
    def tx_id(self) -> str:
        return self.signed.id

    @property
    def tick(self) -> int:
        return self.signed.tick


def urls_of(settings: Settings, network: Network) -> tuple[str, ...]:
    return settings.qubic_url or (URLS[network],)


@asynccontextmanager
async def network_of(settings: Settings, network: Network) -> AsyncIterator["OnChain"]:
    clients = [Client(url) for url in urls_of(settings, network)]
    try:
        yield OnChain(FailOver(clients), where=clients[0].url)
    finally:
        for client in clients:
            await client.close()


async def faucet(settings: Settings, network: Network, key: str, amount_qu: int) -> str:
    """Play money for an identity, from the devnet's faucet; gives the transaction's id. No other network has one.
    Raises `PaymentRefused`, `NetworkUnreachable`."""
    url = urls_of(settings, network)[0].rstrip("/")
    if network != "devnet":
        raise PaymentRefused(
            f"the {network} network has no faucet", remedy="Buy QU, or send them from a wallet that holds some."
        )
    try:
        async with httpx.AsyncClient(timeout=FAUCET_S) as client:
            answer = await client.post(f"{url}/devnet/v1/faucet", json={"identity": key, "amount": amount_qu})
    except httpx.HTTPError as problem:
        raise NetworkUnreachable(
            f"the devnet does not answer at {url} ({problem or type(problem).__name__})",
            remedy="Start it (qubix devnet, or qubix up), or set QUBIX_QUBIC_URL to where it is.",
        ) from None
    try:
        if answer.is_success:
            return str(answer.json()["transaction_id"])
    except (ValueError, KeyError, TypeError):
        pass  # something answers there, and it is no devnet
    raise PaymentRefused(
        f"{url} gives nothing: {answer.text[:300]}", remedy="Ask for less, or set QUBIX_QUBIC_URL to a devnet."
    )


class OnChain:
    """Every method raises `NetworkUnreachable` when the network does not answer, or not as it should."""

    def __init__(self, source: Source, *, where: str) -> None:
        self._source = source
        self.where: Final = where

    async def balance_qu(self, public_key: bytes) -> int:
        try:
            return (await self._source.balance(public_key)).amount_qu
        except ChainError as problem:
            raise self._unreachable(problem) from None

    async def sign_payment(self, wallet: Wallet, destination: str, amount_qu: int) -> Payment:
        """Signed for a tick that is still to come, and not sent. Raises `BadUsage` and `WalletLocked`."""
        if type(amount_qu) is not int or not 1 <= amount_qu <= AMOUNT_QU_MAX:
            raise BadUsage("amount", f"a payment is 1 to 10^15 QU, not {amount_qu!r}", "Give a whole number of QU.")
        key, to = wallet.qubic_key, _key_of(destination)
        held_qu = await self.balance_qu(key)
        if held_qu < amount_qu:
            raise BadUsage(
                "amount",
                f"the wallet {identity.encode(key)} holds {held_qu:,} QU, less than {amount_qu:,}",
                "Send QU to the wallet first, or pay less.",
            )
        try:
            tick = (await self._source.tick_info()).tick + TICKS_AHEAD
        except ChainError as problem:
            raise self._unreachable(problem) from None
        unsigned = Transaction.build(source=key, destination=to, amount=amount_qu, tick=tick)
        return Payment(wallet.sign_transaction(unsigned))

    async def send(self, payment: Payment) -> None:
        """May be repeated. After `NetworkUnreachable` nobody knows whether the network has it: ask for its fate. So it
        is even when the network refuses it, as it does once its tick has come: an earlier try may have been taken,
        and its answer lost."""
        try:
            await self._source.broadcast(payment.signed.to_bytes())
        except ChainError as problem:
            raise self._unreachable(problem) from None

    async def fate(self, payment: Payment) -> Fate | None:
        """None while it may still run, or nobody can tell yet."""
        try:
            if (await self._source.last_processed_tick()).tick < payment.tick:
                return None
            found = await self._source.transaction_by_hash(payment.tx_id)
            if found is not None:
                return Fate.RAN if found.money_flew else Fate.MOVED_NOTHING
            data = await self._source.tick_data(payment.tick)
        except SkippedTick:
            return Fate.NOT_RUN
        except NotYetProcessed:
            return None
        except ChainError as problem:
            raise self._unreachable(problem) from None
        listed = data is not None and payment.tx_id in data.tx_ids
        return None if listed else Fate.NOT_RUN

    def _unreachable(self, problem: ChainError) -> NetworkUnreachable:
        did = "refuses what was asked" if isinstance(problem, RefusedByNetwork) else "does not answer"
        return NetworkUnreachable(
            f"the Qubic network {did} at {self.where} ({problem})",
            remedy="Set QUBIX_QUBIC_URL to the address of its API, or try again later.",
        )


def _key_of(destination: str) -> bytes:
    try:
        return identity.decode(destination)
    except ValueError as reason:
        raise BadUsage("identity", f"this is no identity: {reason}", "Copy the whole identity, 60 letters.") from None
