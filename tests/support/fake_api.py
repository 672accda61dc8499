# SPDX-License-Identifier: Apache-2.0
"""A coordinator's HTTP face for the SDK's tests: real sockets, real signatures, no market behind it.

Trouble is scripted: `api.trouble("PUT", "/artifacts/", DROP)` meets the next request of that kind.
"""

import contextlib
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, urlsplit

import msgspec
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from qubix_coordinator.models import rules as models
from qubix_kernels import get, names
from qubix_kernels.onnx import task as describing
from qubix_kernels.onnx.frames import DescribeTask
from qubix_protocol import digests
from qubix_protocol.api import (
    AccountView,
    ArtifactBody,
    ArtifactView,
    AttemptView,
    EstimateView,
    JobBody,
    JobsView,
    JobView,
    ListingView,
    NetworkView,
    OffersView,
    Problem,
    ReadingsView,
    ReceiptsView,
    ReceiptView,
    ResultPart,
    ResultView,
)
from qubix_protocol.arrays import Array, ArrayMeta, from_npy, pack_arrays
from qubix_protocol.earnings import EarningsPeriod, EarningsView, Period, Sums, WorkKind, WorksView, WorkView
from qubix_protocol.envelope import open_envelope, seal
from qubix_protocol.history import GaugeView, HistoryPoint, HistorySource, HistoryView, ListingChange
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Message, Order, Report, Sample, Settlement
from qubix_protocol.models import ModelBody, ModelState, ModelView
from qubix_protocol.query import order_text, ordered, parse, parse_order
from qubix_protocol.receipts import JobReceiptView
from qubix_protocol.reputation import ReputationPart, ReputationView
from qubix_protocol.selftest import Check, CheckStatus, SelfTestView
from qubix_protocol.states import AttemptState, Availability, DeviceKind, JobState, Outcome, Reason
from tests.support.receipt_chain import RATE, Story

T = TypeVar("T")
TOKEN: Final = "token-of-the-tests"
DROP: Final = "drop"
"""The connection ends before anything was done."""
DROP_AFTER: Final = "drop_after"
"""The connection ends after it was done, before the answer."""


WORK: Final = WorkView(
    kind=WorkKind.RENTAL,
    work_id="7d444840-9dc0-11d1-b245-5ffdce74fad2",
    job_id=None,
    rental_id="7d444840-9dc0-11d1-b245-5ffdce74fad2",
    listing_id="7d444840-9dc0-11d1-b245-5ffdce74fad3",
    provider="12D3KooWSXdaPzv9G8Rb3jLG8xy5Adimgr1te9xWQzKTjM1xGhmN",
    model="A card",
    kernel="",
    state="ended",
    reason="stopped_by_consumer",
    reason_text="its consumer stopped it",
    created_ms=1_000,
    started_ms=2_000,
    ended_ms=9_000,
    billed_ms=7_000,
    rate_qu_per_h=3_600,
    paid_qu=6,
    fee_qu=1,
    owed_qu=0,
    taken_back_qu=0,
)


@dataclass(frozen=True)
class Seen:
    """One request as it came; `at` by the monotonic clock."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Upload:
    size_bytes: int
    content: bytearray = field(default_factory=bytearray)

    @property
    def complete(self) -> bool:
        return len(self.content) == self.size_bytes


class Refusal(Exception):
    def __init__(self, status: int, code: str, detail: str = "", *, remedy: str = "", field: str = "") -> None:
        super().__init__(detail)
        self.problem = Problem(
            type=f"urn:qubix:problem:{code}",
            title=code,
            status=status,
            code=code,
            detail=detail,
            remedy=remedy,
            field=field,
        )


class FakeApi:
    """`with FakeApi() as api:` serves on `api.url`."""

    def __init__(self, port: int = 0, key: SigningKey | None = None) -> None:
        self.key = key or SigningKey.generate()
        self.provider = SigningKey.generate()
        self.seen: list[Seen] = []
        self.uploads: dict[str, Upload] = {}
        self.jobs: dict[str, JobView] = {}
        self.results: dict[str, ResultView] = {}
        self.receipts: dict[str, list[ReceiptView]] = {}
        self.stories: dict[str, Story] = {}
        self.models: dict[str, ModelView] = {}
        self.by_key: dict[str, str] = {}
        self.orders: list[Order] = []
        self.balance_qu = 1_000
        self.estimate: EstimateView | None = None
        self.subscriptions: list[dict[str, Any]] = []
        self.live: list[Iterable[dict[str, Any]]] = []
        """What each next WebSocket connection sends before it closes; without one left, connections are refused."""
        self.hold_last_live = False
        """Whether the last scripted connection stays open at its end."""
        self.on_poll: list[JobView] = []
        """The job's next states, one for each GET of it."""
        self._trouble: list[tuple[str, str, int | str]] = []
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", port), self)
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "FakeApi":
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def trouble(self, method: str, path: str, *what: int | str) -> None:
        """Each of `what` (a status, DROP or DROP_AFTER) meets one of the next requests whose path contains `path`."""
        self._trouble += [(method, path, one) for one in what]

    def trouble_for(self, method: str, path: str) -> int | str | None:
        with self._lock:
            for one in self._trouble:
                if one[0] == method and one[1] in path:
                    self._trouble.remove(one)
                    return one[2]
        return None

    def calls(self, method: str, path: str) -> list[Seen]:
        return [one for one in self.seen if one.method == method and path in one.path]

    # What a coordinator would do

    def answer(self, seen: Seen) -> tuple[int, Any]:
        path = seen.path.removeprefix("/api/v1")
        if not _open_to_visitors(seen, path) and seen.headers.get("authorization") != f"Bearer {TOKEN}":
            raise Refusal(401, "unauthorised", "no such token", remedy="Send a token", field="Authorization")
        first, *rest = path.strip("/").split("/")
        handler = getattr(self, f"_{seen.method.lower()}_{first}", None)
        if handler is None:
            raise Refusal(404, "not_found", f"nothing at {path}")
        found: tuple[int, Any] = handler(seen, *rest)
        return found

    def _get_network(self, seen: Seen) -> tuple[int, Any]:
        return 200, NetworkView(
            network="devnet",
            coordinator_key=self.key.public.hex(),
            protocol_version=1,
            fee_bps=250,
            gateways=(),
            regions=("local",),
            clock_ms=now_ms(),
        )

    def _get_account(self, seen: Seen, *rest: str) -> tuple[int, Any]:
        if rest == ("earnings",):
            return 200, self._earnings(seen)
        if rest == ("work",):
            return 200, WorksView(work=(WORK,), next=None)
        account_id = "00000000-0000-0000-0000-000000000001"
        return 200, AccountView(
            account_id=account_id, name="tester", balance_qu=self.balance_qu, held_qu=0, scopes=("user",)
        )

    def _history(self, seen: Seen, listing_id: str) -> HistoryView:
        """Ten minutes from `since` on, the middle ones without a reading."""
        since_ms = int(seen.query["since"][0]) // 60_000 * 60_000
        gauge = [GaugeView(min=step, mean=step, max=step + 1, last=step) for step in range(10)]
        points = tuple(
            HistoryPoint(
                start_ms=since_ms + step * 60_000,
                samples=1,
                utilisation_pct=gauge[step],
                temperature_c=None,
                memory_used_bytes=None,
                power_mw=None,
                clock_mhz=None,
                memory_total_bytes=None,
                throttled=None,
            )
            for step in (0, 1, 2, 7, 8, 9)
        )
        changes = (ListingChange(at_ms=since_ms, rate_qu_per_h=7_500, availability=Availability.DRAINING),)
        return HistoryView(
            listing_id=listing_id,
            source=HistorySource.MINUTE,
            bucket_ms=60_000,
            since_ms=since_ms,
            until_ms=since_ms + 600_000,
            points=points,
            changes=changes,
        )

    def _earnings(self, seen: Seen) -> EarningsView:
        sums: dict[str, int] = {"earned_qu": 900, "fee_qu": 23, "awarded_qu": 0, "taken_back_qu": 100, "net_qu": 800}
        since_ms = int(seen.query.get("since", ["0"])[0])
        week = EarningsPeriod(first_day="2026-11-23", since_ms=since_ms, until_ms=since_ms + 1, settlements=3, **sums)
        return EarningsView(
            by=Period(seen.query["by"][0]),
            tz=seen.query["tz"][0],
            whole=Sums(settlements=3, **sums),
            periods=(week,),
            listings=(),
        )

    def _post_account(self, seen: Seen, action: str) -> tuple[int, Any]:
        """A request that does something each time it comes."""
        assert action == "once"
        self.balance_qu += 5
        return self._get_account(seen)

    def _get_kernels(self, seen: Seen) -> tuple[int, Any]:
        return 200, {"kernels": [get(name).spec for name in names()]}

    def _get_offers(self, seen: Seen, listing_id: str = "", what: str = "") -> tuple[int, Any]:
        if what == "reputation":
            part = ReputationPart(name="completion", value=0.5, text="Finished 3 of 4.", numbers={"finished": 3.0})
            return 200, ReputationView(listing_id=listing_id, reliability=0.25, text="So much.", parts=(part,))
        if what == "history":
            return 200, self._history(seen, listing_id)
        if what == "selftest":
            check = Check(
                id="disk",
                title="Free disk",
                status=CheckStatus.FAIL,
                actual="1.0",
                purpose="Inputs lie there.",
                remedy="Free some.",
            )
            tested = {"at_ms": 1, "age_ms": 1, "checks": (check,)} if listing_id == listing("b", 0).listing_id else {}
            return 200, SelfTestView(listing_id=listing_id, verified=False, score=1234.6, **tested)  # type: ignore[arg-type]
        if what == "readings":
            minutes = int(seen.query["minutes"][0])
            return 200, ReadingsView(listing_id=listing_id, readings=(Sample(at_ms=minutes, temperature_c=50.0),))
        return 200, self._search({name: values[0] for name, values in seen.query.items()})

    def _search(self, asked: dict[str, str]) -> OffersView:
        """Offers a, b and c, in pages, as the query line has it."""
        plain = [f"{name}={asked[name]}" for name in ("kind", "backend", "provider") if name in asked]
        query = parse(" ".join([asked.get("q", ""), *plain]))
        keys = parse_order(asked.get("order") or "price")
        everything = [listing("a", 300), listing("b", 100), listing("c", 200)]
        found = ordered(filter(query.matches, everything), keys)
        start = int(asked.get("after", 0))
        stop = start + int(asked.get("limit", 2))
        return OffersView(
            offers=tuple(found[start:stop]),
            cursor="0.0",
            next=str(stop) if stop < len(found) else None,
            query=query.text(),
            order=order_text(keys),
            total=len(found),
            everything=len(everything),
            why="" if found else "None of the 3 offers satisfies it.",
        )

    def _post_artifacts(self, seen: Seen) -> tuple[int, Any]:
        body = msgspec.json.decode(seen.body, type=ArtifactBody)
        self.uploads.setdefault(body.digest, Upload(body.size_bytes))
        return 200, self._artifact(body.digest)

    def _put_artifacts(self, seen: Seen, digest: str) -> tuple[int, Any]:
        upload = self.uploads[digest]
        span, _, size = seen.headers["content-range"].removeprefix("bytes ").partition("/")
        first, _, last = span.partition("-")
        assert (int(size), len(seen.body)) == (upload.size_bytes, int(last) - int(first) + 1)
        if int(first) != len(upload.content):
            raise Refusal(409, "wrong_offset", "resume elsewhere")
        upload.content += seen.body
        if upload.complete and digests.of_bytes(bytes(upload.content)).hex() != digest:
            upload.content.clear()
            raise Refusal(422, "invalid_input", "the content has another digest", field="digest")
        return 200, self._artifact(digest)

    def _get_artifacts(self, seen: Seen, digest: str) -> tuple[int, Any]:
        return 200, bytes(self.uploads[digest].content)

    def _post_models(self, seen: Seen) -> tuple[int, Any]:
        """Described at once, on the bytes that were uploaded; told at the second time of asking."""
        body = msgspec.json.decode(seen.body, type=ModelBody)
        given = {name: one.digest for name, one in body.inputs.items() if one.digest is not None}
        arrays = {name: from_npy(bytes(self.uploads[digest].content)) for name, digest in given.items()}
        forms = {name: one.meta for name, one in body.inputs.items() if name not in arrays}
        asked = DescribeTask(model="", inputs=given, forms=forms, whole=body.whole)
        data = from_npy(bytes(self.uploads[body.digest].content)).tobytes()
        found = models.outcome(describing.run(asked, data, arrays), body, zeros=bool(forms) or not given)
        told: dict[str, Any] = {"model_id": str(uuid.uuid4()), "digest": body.digest, "asked_ms": 1, "due_ms": 2}
        answer = msgspec.structs.asdict(found.answer)
        self.models[told["model_id"]] = ModelView(state=found.state, **told, **answer)
        return 202, ModelView(state=ModelState.WAITING, **told)

    def _get_models(self, seen: Seen, model_id: str) -> tuple[int, Any]:
        return 200, self.models[model_id]

    def _artifact(self, digest: str) -> ArtifactView:
        found = self.uploads[digest]
        return ArtifactView(
            digest=digest, size_bytes=found.size_bytes, offset=len(found.content), complete=found.complete
        )

    def _post_jobs(self, seen: Seen, *rest: str) -> tuple[int, Any]:
        if rest and rest[-1] == "cancel":
            return 200, self.change(rest[0], state=JobState.CANCELLED, reason=Reason.CANCELLED_BY_CONSUMER)
        if rest == ("estimate",):
            if self.estimate is None:
                raise Refusal(404, "not_found", "nobody fits")
            return 200, self.estimate
        body, key = msgspec.json.decode(seen.body, type=JobBody), seen.headers["idempotency-key"]
        if body.cap_qu > self.balance_qu:
            raise Refusal(402, "not_enough_balance", "too dear", remedy="Deposit QU", field="cap_qu")
        raw = bytes.fromhex(body.order)
        opened = open_envelope(raw, network="devnet", audience=self.key.public, now_ms=now_ms())
        self.orders.append(opened.body(Order))
        if key not in self.by_key:
            self.by_key[key] = self.add_job(body).job_id
        return 201, self.jobs[self.by_key[key]]

    def _get_jobs(self, seen: Seen, job_id: str = "", part: str = "") -> tuple[int, Any]:
        if not job_id:
            return 200, self._jobs_page(int(seen.query.get("after", ["0"])[0]), int(seen.query["limit"][0]))
        if job_id not in self.jobs:
            raise Refusal(404, "not_found", "there is no such job of yours", remedy="Look at `qubix job list`")
        if part == "result":
            return 200, self.results[job_id]
        if part == "receipt":
            return 200, JobReceiptView(job_id=job_id, receipt=self.stories[job_id].file.decode())
        if part == "receipts":
            return 200, ReceiptsView(job_id=job_id, receipts=tuple(self.receipts[job_id]))
        if self.on_poll:
            self.jobs[job_id] = self.on_poll.pop(0)
        return 200, self.jobs[job_id]

    # What tests arrange

    def _jobs_page(self, start: int, limit: int) -> JobsView:
        newest, stop = tuple(reversed(self.jobs.values())), start + limit
        return JobsView(jobs=newest[start:stop], next=str(stop) if stop < len(newest) else None)

    def add_job(self, body: JobBody | None = None) -> JobView:
        view = JobView(
            job_id=str(uuid.uuid4()),
            state=JobState.QUEUED,
            reason=Reason.WAITING_FOR_PROVIDER,
            reason_text="waiting",
            detail="",
            kernel=body.kernel if body else "matmul",
            params=dict(body.params) if body else {},
            inputs={name: one.meta for name, one in body.inputs.items()} if body else {},
            created_ms=now_ms(),
            ended_ms=None,
            deadline_ms=now_ms() + 60_000,
            cap_qu=body.cap_qu if body else 100,
            held_qu=body.cap_qu if body else 100,
            paid_qu=0,
            fee_qu=0,
            returned_qu=0,
            units=4,
            units_accepted=0,
            fraction=0.0,
            expected_finish_ms=None,
            attempts=(),
            revision=0,
        )
        self.jobs[view.job_id] = view
        return view

    def change(self, job_id: str, **changes: Any) -> JobView:
        view = self.jobs[job_id]
        self.jobs[job_id] = msgspec.structs.replace(view, revision=view.revision + 1, **changes)
        return self.jobs[job_id]

    def settle(self, job_id: str, parts: Sequence[tuple[int, int, dict[str, Array]]]) -> JobView:
        """The job is done: its parts stored, a receipt signed by both sides."""
        found = []
        for start, stop, arrays in parts:
            content = pack_arrays(arrays)
            digest = digests.of_bytes(content).hex()
            self.uploads[digest] = Upload(len(content), bytearray(content))
            found.append(ResultPart(start=start, stop=stop, digest=digest, size_bytes=len(content)))
        outputs = {
            name: ArrayMeta(array.dtype.name, (parts[-1][1], *array.shape[1:])) for name, array in parts[0][2].items()
        }
        self.results[job_id] = ResultView(job_id=job_id, outputs=outputs, parts=tuple(found))
        attempt = self._attempt(parts[-1][1])
        self.receipts[job_id] = [self._receipt(job_id, attempt)]
        self.stories[job_id] = Story(
            coordinator=self.key,
            provider=self.provider,
            job_id=job_id,
            hold_qu=self.jobs[job_id].cap_qu,
            units=attempt.units,
        ).opened()
        contents = [(start, stop, pack_arrays(arrays)) for start, stop, arrays in parts]
        self.stories[job_id].attempt(contents, attempt_id=attempt.attempt_id).closed()
        return self.change(
            job_id,
            state=JobState.SETTLED,
            reason=Reason.COMPLETED,
            reason_text="finished by the provider",
            fraction=1.0,
            units=attempt.units,
            units_accepted=attempt.units,
            held_qu=0,
            paid_qu=attempt.paid_qu,
            fee_qu=attempt.fee_qu,
            returned_qu=self.jobs[job_id].cap_qu - attempt.paid_qu - attempt.fee_qu,
            attempts=(attempt,),
        )

    def _attempt(self, units: int) -> AttemptView:
        return AttemptView(
            attempt_id=str(uuid.uuid4()),
            fence=1,
            provider=self.provider.peer_id,
            model="test device",
            backend="cpu",
            state=AttemptState.ACCEPTED,
            reason=Reason.COMPLETED,
            detail="",
            rate_qu_per_h=RATE,
            units=units,
            units_done=units,
            units_accepted=units,
            run_ms=1_000,
            billed_ms=1_000,
            check_ms=20,
            verdict="ok",
            paid_qu=27,
            fee_qu=1,
            receipt=True,
        )

    def _receipt(self, job_id: str, attempt: AttemptView) -> ReceiptView:
        report = self._sealed(
            self.provider,
            Report(
                job_id=job_id,
                attempt_id=attempt.attempt_id,
                fence=1,
                outcome=Outcome.COMPLETED,
                kernel="matmul",
                params_digest=digests.ZERO,
                inputs_digest=digests.ZERO,
                links=1,
                units_done=attempt.units,
                head=digests.ZERO,
                claimed_ms=1_000,
                started_ms=1,
                finished_ms=2,
                backend="cpu",
                device_id="cpu-1",
            ),
        )
        settlement = Settlement(
            network="devnet",
            job_id=job_id,
            attempt_id=attempt.attempt_id,
            provider=self.provider.peer_id,
            report_digest=digests.of_bytes(report),
            head=digests.ZERO,
            units_accepted=attempt.units,
            units_total=attempt.units,
            verdict="ok",
            check_ms=20,
            run_ms=1_000,
            billed_ms=1_000,
            rate_qu_per_h=RATE,
            paid_qu=attempt.paid_qu,
            fee_qu=attempt.fee_qu,
            decided_ms=3,
        )
        return ReceiptView(
            network="devnet",
            provider=self.provider.peer_id,
            coordinator_key=self.key.public.hex(),
            report=report.hex(),
            settlement=self._sealed(self.key, settlement).hex(),
        )

    def _sealed(self, key: SigningKey, message: Message) -> bytes:
        return seal(
            message,
            key,
            network="devnet",
            audience=self.key.public,
            incarnation=1,
            counter=1,
            expires_ms=now_ms() + 60_000,
        )

    def event(self, job_id: str, cursor: str, kind: str = "delta", **changes: Any) -> dict[str, Any]:
        """A live event with the job changed so."""
        data = msgspec.to_builtins(self.change(job_id, **changes))
        return {"topic": f"job:{job_id}", "kind": kind, "cursor": cursor, "data": data}


def listing(provider: str, rate_qu_per_h: int) -> ListingView:
    return ListingView(
        listing_id=str(uuid.uuid5(uuid.NAMESPACE_OID, provider)),
        provider=provider,
        device_id=f"cpu-{provider}",
        kind=DeviceKind.CPU,
        model=f"device {provider}",
        memory_bytes=8 * 1024**3,
        cores=4,
        driver="",
        cuda="",
        compute_capability="",
        backends=("cpu",),
        rate_qu_per_h=rate_qu_per_h,
        region="local",
        availability=Availability.AVAILABLE,
        verified=False,
        jobs_accepted=1_234,
        jobs_rejected=0,
    )


def now_ms() -> int:
    return round(time.time() * 1000)


def _open_to_visitors(seen: Seen, path: str) -> bool:
    """As at a coordinator (docs/adr/0042): a token that is sent must be one even so."""
    looking = seen.method == "GET" and path.startswith(("/offers", "/kernels"))
    return path == "/network" or (looking and "authorization" not in seen.headers)


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, address: tuple[str, int], api: FakeApi) -> None:
        self.api = api
        self.closing = threading.Event()
        super().__init__(address, _Handler)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """A WebSocket is told from HTTP by its first line, since both live on one port."""
        if request.recv(9, socket.MSG_PEEK) == b"GET /live":
            with contextlib.suppress(OSError):
                self._serve_live(request)
            self.shutdown_request(request)
        else:
            super().process_request_thread(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are a part of these tests."""

    def _serve_live(self, request: socket.socket) -> None:
        api = self.api
        if not api.live:
            return
        script = api.live.pop(0)
        live = _Live(request)
        asker, wanted = live.headers.get("Authorization"), msgspec.json.decode(live.receive())
        topics = [one if isinstance(one, str) else one["topic"] for one in wanted["subscribe"]]
        assert asker == f"Bearer {TOKEN}" or (asker is None and topics == ["market"]), (asker, topics)
        api.subscriptions.append(wanted)
        for event in script:
            live.send(msgspec.json.encode(event))
        if api.hold_last_live and not api.live:
            self.closing.wait(20)
        live.close()


class _Live:
    """One WebSocket connection, by hand: the protocol without its own threads."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock, self._protocol = sock, ServerProtocol()
        sock.settimeout(60)
        asked = self._event(Request)
        self.headers = asked.headers
        self._protocol.send_response(self._protocol.accept(asked))
        self._flush()

    def receive(self) -> bytes:
        while (frame := self._event(Frame)).opcode is not Opcode.TEXT:
            pass
        return bytes(frame.data)

    def send(self, text: bytes) -> None:
        self._protocol.send_text(text)
        self._flush()

    def close(self) -> None:
        self._protocol.send_close(1001)
        self._flush()
        self._sock.settimeout(1)
        with contextlib.suppress(ConnectionResetError):
            while self._event(Frame).opcode is not Opcode.CLOSE:  # the client waits for this side to end first
                pass

    def _event(self, kind: type[T]) -> T:
        while True:
            for event in self._protocol.events_received():
                if isinstance(event, kind):
                    return event
            received = self._sock.recv(4096)
            if not received:
                raise ConnectionResetError
            self._protocol.receive_data(received)

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            self._sock.sendall(data)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5
    server: _Server

    def _serve(self) -> None:
        api = self.server.api
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(self.command, url.path, parse_qs(url.query), headers, body)
        api.seen.append(seen)
        trouble = api.trouble_for(self.command, url.path)
        if trouble == DROP:
            self.close_connection = True
        elif isinstance(trouble, int):
            self._send(trouble, b"scripted trouble", "text/plain")
        else:
            answered = self._answer(api, seen)
            if trouble == DROP_AFTER:
                self.close_connection = True
            else:
                self._send(*answered)

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815  the names that http.server looks for

    def _answer(self, api: FakeApi, seen: Seen) -> tuple[int, bytes, str]:
        try:
            status, found = api.answer(seen)
        except Refusal as refusal:
            return refusal.problem.status, msgspec.json.encode(refusal.problem), "application/problem+json"
        if isinstance(found, bytes):
            return status, found, "application/octet-stream"
        return status, msgspec.json.encode(found), "application/json"

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words: object) -> None:
        """Silent."""
