# SPDX-License-Identifier: Apache-2.0
"""A market whose processes are held at barriers and killed there, and what must hold whatever was killed.

The consumer and the relay keep the outside log: what was acknowledged over HTTP, and on the wire to a node, must be in
the database afterwards, once (trust I7).
"""

import asyncio
import contextlib
import os
import re
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncpg
import numpy as np
import psutil

import qubix
from qubix.settings import Settings as ClientSettings
from qubix_protocol import digests
from qubix_protocol.api import JobView
from qubix_protocol.envelope import read_evidence
from qubix_protocol.keys import public_key_of
from qubix_protocol.messages import Progress
from qubix_protocol.states import JobState
from tests.support import books
from tests.support.barriers import Barriers
from tests.support.funds import fund_market
from tests.support.market import Market, Process
from tests.support.wire import Log, Relay

VICTIMS = ("node", "worker", "gateway", "coordinator", "verifier", "postgres")
REPLICA = "replica"
DEADLINE_S = 180.0
CREDIT_QU = 10_000_000
CAP_QU = 100_000
_BROUGHT = re.compile(r"courier\.acknowledged attempt=(\S+) link=(\d+|None)")
QUERIES, POINTS, WIDTH, NEAREST = 3_000, 40_000, 64, 3


class CrashMarket(Market):
    """With barriers, a log of the wire, short leases, and nodes that work with one thread."""

    def __init__(self, folder: Path, **env: str) -> None:
        short = {"QUBIX_LEASE_S": "4", "QUBIX_HEARTBEAT_S": "0.5"}
        told = {"QUBIX_BARRIERS": str(folder / "barriers"), "QUBIX_NODE_KEY_LOG": str(folder / "keys.log")}
        super().__init__(folder, **{**told, **short, **env})
        self.barriers = Barriers(folder / "barriers")
        self.wire = Log(folder / "keys.log")
        self._stack = contextlib.ExitStack()
        self._relays: dict[str, str] = {}
        self._gateways: dict[str, list[str]] = {}

    def __enter__(self) -> Self:
        self._stack.enter_context(self.barriers)
        try:
            return super().__enter__()
        except BaseException:
            self._stack.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # First the barriers: whoever still stands at one must hear that it is to stop.
        self._stack.close()
        super().__exit__(kind, error, trace)

    def start_gateway(self, name: str = "gateway", coordinator: str = "coordinator") -> Process:
        """Behind a relay to that coordinator; nodes started later know of every gateway that was started."""
        if coordinator not in self._relays:
            url = str(self.parts[coordinator].info["url"])
            self._relays[coordinator] = self._stack.enter_context(Relay(url, self.wire)).url
        env = {
            "QUBIX_GATEWAY_TOKEN": (self.folder / "data" / "gateway.token").read_text().strip(),
            "QUBIX_DATA_DIR": str(self._own(name)),
            "QUBIX_COORDINATOR_URL": self._relays[coordinator],
            "QUBIX_BOOTSTRAP": "",
        }
        process = self.start(name, "qubix_mesh.gateway", **env)
        self._gateways[name] = process.info["addresses"]
        self.env["QUBIX_BOOTSTRAP"] = ",".join(one for found in self._gateways.values() for one in found)
        return process

    def start_replica(self) -> Process:
        """A second coordinator on the same database, key and artifacts, with a gateway of its own."""
        process = self.start(REPLICA, "qubix_coordinator", QUBIX_HTTP_PORT="0")
        self.start_gateway(f"{REPLICA}-gateway", REPLICA)
        return process

    def start_node(self, name: str = "node", module: str = "qubix_node", *args: str, **env: str) -> Process:
        return super().start_node(name, module, *args, **{"QUBIX_NODE_THREADS": "1", "QUBIX_LOG_LEVEL": "DEBUG", **env})

    # Killing --------------------------------------------------------------------------------------------------------

    def kill(self, victim: str) -> None:
        """kill -9, and wait until it is gone."""
        if victim == "worker":
            self.kill_workers("node")
        elif victim == "postgres":
            self.kill_postgres()
        else:
            self.parts[victim].kill()

    def restart(self, victim: str) -> None:
        """A worker is not restarted by us: that is the node's affair."""
        starts: dict[str, Callable[[], Process]] = {
            "node": self.start_node,
            "gateway": self.start_gateway,
            "coordinator": self.start_coordinator,
            "verifier": self.start_verifier,
            "postgres": self.start_database,
        }
        if victim in starts:
            starts[victim]()

    def kill_workers(self, node: str) -> None:
        """Every process that computes for the node, or waits to: those below it that have nobody below them."""
        family = psutil.Process(self.parts[node].popen.pid).children(recursive=True)
        leaves = [one for one in family if not one.children()]
        assert leaves, "a node has a warm worker process, or one at work"
        for one in leaves:
            one.kill()
        psutil.wait_procs(leaves, timeout=30)

    def kill_postgres(self) -> None:
        """The postmaster; its supervisor then ends by itself."""
        pid = int((self.folder / "data/postgres/data/postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        assert self.parts["database"].popen.wait(30) == 1

    # Looking --------------------------------------------------------------------------------------------------------

    def rows(self, sql: str, *values: object) -> list[dict[str, Any]]:
        """Straight from the database, past every process."""

        async def fetch() -> list[dict[str, Any]]:
            connection = await asyncpg.connect(self.env["DATABASE_URL"], timeout=30)
            try:
                return [dict(row) for row in await connection.fetch(sql, *values)]
            finally:
                await connection.close()

        return asyncio.run(fetch())

    def computed(self, node: str) -> dict[str, list[tuple[int, int]]]:
        """The executed-chunk log of a node: which units its workers really computed, by attempt."""
        found: dict[str, list[tuple[int, int]]] = {}
        for line in self.parts[node].log.read_text().splitlines():
            _, event, text = line.partition("job.computed ")
            if event:
                facts = dict(word.split("=", 1) for word in text.split())
                found.setdefault(facts["attempt"], []).append((int(facts["start"]), int(facts["stop"])))
        return found

    def brought(self) -> set[tuple[str, int | None]]:
        """What nodes say was acknowledged to them by HTTPS, past every gateway: attempt and link, None for a report."""
        found: set[tuple[str, int | None]] = set()
        for log in self.folder.glob("*.log"):
            for attempt, link in _BROUGHT.findall(log.read_text(errors="replace")):
                found.add((attempt, None if link == "None" else int(link)))
        return found

    def audit(self) -> None:
        books.audit(self.env)


def until(what: Callable[[], object], *, deadline_s: float = DEADLINE_S) -> None:
    """Wait for a state that must come: the deadline is far beyond what is expected."""
    end = time.monotonic() + deadline_s
    while not what():
        assert time.monotonic() < end, "what was waited for did not come"
        time.sleep(0.05)


def offered(api: qubix.Client, count: int) -> Callable[[], bool]:
    return lambda: len(api.offers()) >= count


class Consumer:
    """Somebody outside with a patient client, who writes down every answer."""

    def __init__(self, market: CrashMarket, url: str = "", *, queries: int = QUERIES) -> None:
        """`url` names another coordinator than the first one."""
        self._market, self._url = market, url or market.url
        self._pool = ThreadPoolExecutor(1)
        rng = np.random.default_rng(7)
        self.data = rng.standard_normal((POINTS, WIDTH), dtype=np.float32)
        self.queries = rng.standard_normal((queries, WIDTH), dtype=np.float32)
        self._right = _nearest(self.queries[:5], self.data)
        self.api = self._client()
        fund_market(market, self.api, CREDIT_QU)

    def close(self) -> None:
        self._pool.shutdown()
        self.api.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _client(self) -> qubix.Client:
        settings = ClientSettings(
            coordinator_url=self._url, token=self._market.token, data_dir=self._market.folder / "client", tries_max=20
        )
        return qubix.Client(settings=settings)

    def submit_aside(self, *, spread: int | None = None) -> "Submitted":
        """In a thread: its answer may be held."""
        key = str(uuid.uuid4())
        return Submitted(self, key, self._pool.submit(self._submit, key, spread))

    def _submit(self, key: str, spread: int | None) -> JobView:
        arrays = {"queries": self.queries, "data": self.data}
        with self._client() as api:
            job = api.submit("knn", inputs=arrays, k=NEAREST, cap_qu=CAP_QU, spread=spread, idempotency_key=key)
            return job.view

    def check(self, result: dict[str, np.ndarray]) -> None:
        np.testing.assert_array_equal(result["indices"][:5], self._right)
        assert result["indices"].shape == (len(self.queries), NEAREST)
        assert result["indices"].min() >= 0, "every row was filled"


class Submitted:
    """One job, from the acknowledgement of its submission to its result."""

    def __init__(self, consumer: Consumer, key: str, answer: "Future[JobView]") -> None:
        self._consumer, self.key, self._answer = consumer, key, answer

    def acknowledged(self) -> str:
        """The job's id, once the coordinator has said it."""
        return self._answer.result(DEADLINE_S).job_id

    def finish(self) -> JobView:
        """Follows it to its end: it settles, its result is right, and nothing that was said is ever taken back."""
        job = self._consumer.api.job(self.acknowledged())
        views = [job.view, *(update.view for update in job.follow(DEADLINE_S)), job.refresh()]
        for before, after in pairwise(views):
            pairs = zip(_grown(before), _grown(after), strict=True)
            assert all(one <= other for one, other in pairs), (before, after)
        view = views[-1]
        assert view.state is JobState.SETTLED, view
        assert view.paid_qu + view.fee_qu + view.returned_qu == view.cap_qu
        assert view.held_qu == 0
        self._consumer.check(job.result(DEADLINE_S))
        return view


def _grown(view: JobView) -> tuple[float, int, int, int]:
    return view.fraction, view.units_accepted, view.paid_qu, len(view.attempts)


def _nearest(queries: np.ndarray, data: np.ndarray) -> np.ndarray:
    wide = data.astype(np.float64)
    distances = ((queries.astype(np.float64)[:, None, :] - wide[None]) ** 2).sum(-1)
    return np.argsort(distances, axis=1, kind="stable")[:, :NEAREST]


def check_everything(market: CrashMarket, view: JobView, key: str) -> None:
    """The invariants after a fault (trust I1–I7), read from the database and compared with the outside log."""
    market.audit()
    stored = market.rows("SELECT id, no FROM job WHERE idempotency_key = $1", key)
    assert [str(row["id"]) for row in stored] == [view.job_id], "a submission is one job"
    links = market.rows(
        "SELECT l.*, a.peer_id FROM link l JOIN attempt a ON a.id = l.attempt_id WHERE l.job_no = $1 ORDER BY l.start",
        stored[0]["no"],
    )
    paid_once(links, view.units)
    links_acknowledged(market.wire, market.brought(), links)
    _reports_acknowledged(market, view.job_id)
    assert not market.rows(
        "SELECT id FROM attempt WHERE job_id = $1 AND state IN ('offered', 'running', 'verifying')", stored[0]["id"]
    )


def paid_once(links: list[dict[str, Any]], units: int) -> None:
    paid = [(link["start"], link["stop"]) for link in links if link["paid"]]
    assert paid[0][0] == 0
    assert all(before[1] == after[0] for before, after in pairwise(paid)), paid
    assert paid[-1][1] == units


def links_acknowledged(wire: Log, brought: set[tuple[str, int | None]], links: list[dict[str, Any]]) -> None:
    """Each stored link is one that its node said, on the wire or in the signed statement that it brought itself."""
    here = {(str(link["attempt_id"]), link["index"]): bytes(link["chain_digest"]) for link in links}
    said = {name: set(wire.said[name]) for name in here}
    for link in links:
        name = str(link["attempt_id"]), link["index"]
        if name not in wire.times:
            said[name].add(_signed(link))
    assert all(digest in said[name] for name, digest in here.items()), "another link than was said"
    attempts = {attempt for attempt, _ in here}
    seen = {*wire.acknowledged_of(attempts), *(name for name in brought if name[0] in attempts)}
    assert {name for name in seen if name[1] is not None} <= set(here), "a link that was acknowledged is gone"


def _signed(link: dict[str, Any]) -> bytes:
    """The digest of the link in the envelope that is kept with it."""
    node = public_key_of(link["peer_id"])
    progress = read_evidence(bytes(link["envelope"]), network="devnet", sender=node).body(Progress)
    assert progress.link is not None
    assert (progress.attempt_id, progress.link.index) == (str(link["attempt_id"]), link["index"])
    return digests.of_link(progress.link)


def _reports_acknowledged(market: CrashMarket, job_id: str) -> None:
    attempts = market.rows(
        "SELECT a.id, a.report_body IS NOT NULL AS reported,"
        " EXISTS (SELECT FROM evidence e WHERE e.attempt_id = a.id AND e.kind = 'report') AS late"
        " FROM attempt a WHERE job_id = $1",
        uuid.UUID(job_id),
    )
    kept = {str(one["id"]) for one in attempts if one["reported"] or one["late"]}
    everything = {str(one["id"]) for one in attempts}
    assert market.wire.unreadable == 0, "the log of the wire could not read along"
    told = {*market.wire.acknowledged_of(everything), *market.brought()}
    assert {attempt for attempt, link in told if link is None and attempt in everything} <= kept, "a report is gone"


@contextlib.contextmanager
def running(folder: Path, **env: str) -> Iterator[tuple[CrashMarket, Consumer]]:
    """A market with one node, and a consumer with credit."""
    with CrashMarket(folder, **env) as market:
        market.start_node()
        with Consumer(market) as consumer:
            until(offered(consumer.api, 1))
            yield market, consumer
