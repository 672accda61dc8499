# SPDX-License-Identifier: Apache-2.0
"""The network's addresses, as deposits and as withdrawals use them, and whether they are of the right network."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from qubix_chain.rpc import Agreed, Client, FailOver
from qubix_chain.rpc.errors import ChainError
from qubix_coordinator.deposits.ports import Chain
from qubix_coordinator.errors import WrongNetwork
from qubix_coordinator.treasury.settings import ChainSettings


@dataclass(frozen=True, slots=True)
class Sources:
    """`chain` is one source, or two that must agree; `independent` are those whose word each counts by itself."""

    clients: Sequence[Client]
    chain: Chain
    independent: Sequence[Chain]
    network: str

    async def check(self) -> None:
        """Raises WrongNetwork for a devnet under another ledger, or another network under a devnet's; ChainError."""
        last: ChainError | None = None
        for client in self.clients:
            try:
                devnet = await client.is_devnet()
            except ChainError as problem:
                last = problem
                continue
            if devnet != (self.network == "devnet"):
                kind = "a devnet" if devnet else "no devnet"
                raise WrongNetwork(
                    f"{client.url} is {kind}, and this ledger's network is {self.network}",
                    field="QUBIX_QUBIC_URL",
                    remedy=f"Name an address of the network {self.network}",
                )
        if last is not None:
            raise last


@contextlib.asynccontextmanager
async def open_sources(settings: ChainSettings) -> AsyncIterator[Sources]:
    weekly = settings.network != "devnet"
    clients = [Client(url, weekly=weekly) for url in settings.qubic_url]
    try:
        if settings.deposit_sources == 2:
            independent: list[Chain] = [clients[0], FailOver(clients[1:])]
            chain: Chain = Agreed(clients[0], FailOver(clients[1:]))
        else:
            chain = FailOver(clients)
            independent = [chain]
        yield Sources(clients, chain, independent, settings.network)
    finally:
        for client in clients:
            await client.close()
