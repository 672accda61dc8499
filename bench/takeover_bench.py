# SPDX-License-Identifier: Apache-2.0
"""From the end of a node in the middle of a job to the first chunk of the attempt that goes on elsewhere.

Real processes with the settings that a market has by default. The node that is killed has committed one chunk and works
on the next. Beside it stands the lease, which is what silence alone would cost.
"""

import os
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.figures import Figure
from qubix_protocol.barriers import Barrier
from tests.support.crash_market import Consumer, CrashMarket, offered, until

_ROUNDS = 3
_QUERIES = 12_000
_LEASE_S = 10.0
_AIM_S = 10.0
_CHEAP = {"QUBIX_NODE_RATE_QU_PER_H": "1000"}
_DEAR = {"QUBIX_NODE_RATE_QU_PER_H": "900000"}


def run() -> list[Figure]:
    folder = Path(tempfile.mkdtemp(prefix="qx-"))
    folder.chmod(0o755)
    try:
        with CrashMarket(folder, QUBIX_LEASE_S=f"{_LEASE_S:g}", QUBIX_HEARTBEAT_S="2") as market:
            return _figures(market)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _figures(market: CrashMarket) -> list[Figure]:
    market.start_node("first", **_CHEAP)
    market.start_node("second", **_DEAR)
    with Consumer(market, queries=_QUERIES) as consumer:
        killed = []
        for _ in range(_ROUNDS):
            until(offered(consumer.api, 2))
            killed.append(_takeover_s(market, consumer, signal.SIGKILL))
            market.parts["first"].kill()
            market.start_node("first", **_CHEAP)
        until(offered(consumer.api, 2))
        frozen = _takeover_s(market, consumer, signal.SIGSTOP)
        market.parts["first"].popen.send_signal(signal.SIGCONT)
    return [
        _beside_lease("takeover of a killed node's job", statistics.median(killed), aim=True),
        _beside_lease("takeover of a frozen node's job", frozen, aim=False),
    ]


def _beside_lease(name: str, value_s: float, *, aim: bool) -> Figure:
    return Figure(
        name=name,
        value=value_s,
        unit="s",
        beside="the lease",
        limit=_LEASE_S,
        aim=f"≤ {_AIM_S:g} s" if aim else "",
        met=value_s <= _AIM_S if aim else None,
        note="to the first chunk of the next attempt" if aim else "stopped, not killed: its gateway's pings notice",
    )


def _takeover_s(market: CrashMarket, consumer: Consumer, blow: signal.Signals) -> float:
    with market.barriers.armed(Barrier.LINK_COMMITTED) as step:
        job = consumer.submit_aside()
        step.wait()
        ended_s = time.time()
        os.kill(market.parts["first"].popen.pid, blow)
    first = _first_chunk_after(market, job.acknowledged(), round(ended_s * 1000))
    until(first)
    took_s = first() / 1000 - ended_s
    job.finish()
    return took_s


def _first_chunk_after(market: CrashMarket, job_id: str, ended_ms: int) -> Callable[[], int]:
    def look() -> int:
        (found,) = market.rows(
            "SELECT min(l.heard_ms) AS heard_ms FROM link l JOIN attempt a ON a.id = l.attempt_id"
            " WHERE a.job_id = $1::text::uuid AND a.created_ms > $2",
            job_id,
            ended_ms,
        )
        return found["heard_ms"] or 0

    return look
