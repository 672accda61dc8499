# SPDX-License-Identifier: Apache-2.0
"""Balances on the chain for people to look at: bounded in time, calls and memory, and never guessed."""

import asyncio
import json

import pytest

from qubix_chain import identity
from qubix_chain.rpc.errors import ChainError, Malformed, Unreachable
from qubix_chain.rpc.types import Balance
from qubix_coordinator.http import balances
from qubix_coordinator.http.balances import FRESH_S, Balances, OnChain

pytestmark = pytest.mark.asyncio
KEYS = [bytes([n]) * 32 for n in range(20)]


class Network:
    """Each key has as many QU as its first byte."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.problem: ChainError | None = None
        self.gate: asyncio.Event | None = None

    async def balance(self, public_key: bytes) -> Balance:
        self.asked.append(public_key)
        if self.gate is not None:
            await self.gate.wait()
        if self.problem is not None:
            raise self.problem
        return Balance(public_key, public_key[0], 0, 0, 0, 0, 0, 0, 77)


class Time:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def reader() -> tuple[Balances, Network, Time]:
    network, time = Network(), Time()
    return Balances(network, time), network, time


async def test_answers_come_in_order_and_serve_for_some_seconds() -> None:
    found, network, time = reader()
    for _ in range(3):
        assert await found.of(KEYS) == [OnChain(n, 77, "") for n in range(20)]
    assert len(network.asked) == 20
    time.now_s = FRESH_S
    await found.of(KEYS[:2])
    assert network.asked[20:] == KEYS[:2]
    assert await found.of([]) == []


@pytest.mark.parametrize("problem", [Unreachable("away"), Malformed("nonsense")])
async def test_what_is_not_known_is_told_with_its_reason(problem: ChainError) -> None:
    found, network, time = reader()
    network.problem = problem
    (said,) = await found.of(KEYS[:1])
    assert said.balance_qu is None
    assert "try again" in said.problem
    network.problem, time.now_s = None, FRESH_S
    assert (await found.of(KEYS[:1]))[0].balance_qu == 0


async def test_a_network_that_is_away_is_not_asked_by_every_page() -> None:
    found, network, _ = reader()
    network.problem = Unreachable("away")
    for _ in range(5):
        await found.of(KEYS[:1])
    assert len(network.asked) == 1


async def test_a_slow_network_holds_nobody_up() -> None:
    network, time = Network(), Time()
    found = Balances(network, time, ask_s=0.05)
    network.gate = asyncio.Event()
    said = await asyncio.wait_for(found.of(KEYS), 10)
    assert [one.balance_qu for one in said] == [None] * 20
    assert len(network.asked) == balances.AT_ONCE_MAX
    network.gate.set()
    time.now_s, found._ask_s = FRESH_S, 60.0
    assert (await found.of(KEYS[:1]))[0].balance_qu == 0


async def test_without_a_network_it_says_who_can_help() -> None:
    (said,) = await Balances(None, Time()).of(KEYS[:1])
    assert (said.balance_qu, said.tick) == (None, None)
    assert "QUBIX_QUBIC_URL" in said.problem


async def test_an_address_that_takes_calls_and_never_answers_leaves_time_for_the_next() -> None:
    body = {"id": identity.encode(KEYS[7]), "balance": "7", "validForTick": 77, "latestIncomingTransferTick": 0}
    body |= {"latestOutgoingTransferTick": 0, "incomingAmount": "0", "outgoingAmount": "0"}
    body |= {"numberOfIncomingTransfers": 0, "numberOfOutgoingTransfers": 0}
    answer = json.dumps({"balance": body}).encode()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)
        await writer.drain()
        writer.close()

    async with (
        await asyncio.start_server(hang, "127.0.0.1", 0) as silent,
        await asyncio.start_server(tell, "127.0.0.1", 0) as open_one,
        balances.qubic_network(
            [f"http://127.0.0.1:{one.sockets[0].getsockname()[1]}" for one in (silent, open_one)], 2
        ) as network,
    ):
        (said,) = await Balances(network, Time(), ask_s=2).of([KEYS[7]])
        assert said == OnChain(7, 77, "")


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balances, "KEPT_MAX", 4)
    found, network, _ = reader()
    await found.of(KEYS)
    await found.of(KEYS[-4:])
    assert len(network.asked) == 20
    await found.of(KEYS[:1])
    assert len(network.asked) == 21
