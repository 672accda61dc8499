# SPDX-License-Identifier: Apache-2.0
"""A wallet's payments where an answer is lost, and where something else answers than the network."""

import asyncio

import httpx
import pytest

from qubix import onchain, settings
from qubix.errors import BadUsage, NetworkUnreachable, PaymentRefused
from qubix.onchain import Fate, OnChain, Payment
from qubix.settings import Settings
from qubix_chain import crypto
from qubix_chain.rpc import Client
from qubix_chain.transaction import Transaction
from tests.chain.recorded import Recorded, told

SEED, TO = "a" * 55, crypto.public_key_of("b" * 55)


@pytest.mark.asyncio
async def test_a_payment_may_have_run_though_its_second_try_is_refused() -> None:
    """The network had taken the first try; the answer came never, and by the second one the tick was over."""
    source = crypto.public_key_of(SEED)
    payment = Payment(Transaction.build(source=source, destination=TO, amount=5, tick=210).sign(SEED))
    network = Recorded()

    def lost_once(request: httpx.Request) -> None:
        if request.url.path.endswith("broadcast-transaction") and not network.txs:
            network.txs.append(told(payment.signed))
            network.last = 220
            raise httpx.ReadTimeout("lost", request=request)

    network.before = lost_once  # type: ignore[assignment]
    chain = OnChain(Client("http://one.test", transport=network.transport()), where="http://one.test")
    with pytest.raises(NetworkUnreachable, match="refuses what was asked"):
        await chain.send(payment)
    assert network.asked.count("/live/v1/broadcast-transaction") == 2
    assert await chain.fate(payment) is Fate.RAN


@pytest.mark.asyncio
@pytest.mark.parametrize("body", [b"hello", b"{}", b"[]"])
async def test_what_is_no_devnet_gives_nothing(body: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        asked = Settings(qubic_url=(f"http://{host}:{port}",))
        with pytest.raises(PaymentRefused, match="gives nothing"):
            await onchain.faucet(asked, "devnet", "A" * 60, 5)


@pytest.mark.parametrize("name", ["QUBIX_QUBIC_URL", "QUBIX_COORDINATOR_URL"])
@pytest.mark.parametrize("url", ["rpc.qubic.org", "http://", "http://host:port", "http://[", "http://host:70000"])
def test_an_address_of_no_use_is_told_before_it_is_asked(name: str, url: str) -> None:
    with pytest.raises(BadUsage, match="no HTTP address") as refused:
        settings.from_mapping({name: url})
    assert refused.value.field == name
