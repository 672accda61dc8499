# SPDX-License-Identifier: Apache-2.0
"""First contact by HTTPS: learn the network, enrol, pin the coordinator's key."""

import logging
import random
from pathlib import Path
from typing import Final, TypeVar

import httpx
import msgspec
import trio

from qubix_mesh.rules import backoff_s
from qubix_node.clock import wall_ms
from qubix_node.errors import CoordinatorChanged, EnrolmentRefused, Fatal, OtherNetwork, Unreachable
from qubix_node.identity import Enrolment, load_enrolment, save_enrolment
from qubix_protocol.api import EnrolView, NetworkView, Problem
from qubix_protocol.envelope import seal
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Enrol, Host, Message
from qubix_protocol.units import PROTOCOL_VERSION, Network

log = logging.getLogger("qubix_node")
T = TypeVar("T")
_ANSWER_BYTES_MAX: Final = 256 * 1024
_REQUEST_S: Final = 10.0
_LIFE_MS: Final = 60_000
_RETRY_STATUS: Final = frozenset({408, 425, 429})


class Enroller:
    """Talks to one coordinator about one node; remembers the outcome in `path`."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        url: str,
        key: SigningKey,
        host: Host,
        network: Network,
        path: Path,
        expected_key: str = "",
    ) -> None:
        """`expected_key`: the coordinator's, where it was told beforehand."""
        self._client, self._url, self._key, self._host = client, url.rstrip("/"), key, host
        self._network: Network = network
        self._path, self._expected_key = path, expected_key
        self._chance = random.Random()  # noqa: S311  spreads retries, guards nothing

    async def enrolled(self) -> Enrolment:
        """The remembered enrolment, or a new one, asked for until it succeeds. Raises `Fatal`.

        With one at hand the coordinator's HTTP may be away: the mesh alone is enough to work.
        """
        known = load_enrolment(self._path)
        if known is None:
            return await self._until_answered()
        try:
            return await self.refreshed(known)
        except Unreachable as error:
            log.warning("enrol.coordinator_unreachable", extra={"url": self._url, "reason": str(error)})
            known.check(network=self._network, coordinator_key=known.coordinator_key, path=self._path)
            return known

    async def refreshed(self, known: Enrolment) -> Enrolment:
        """With the gateways of now. Raises `Unreachable`, or `Fatal` when the coordinator is not the pinned one."""
        view = await self._view()
        known.check(network=self._network, coordinator_key=view.coordinator_key, path=self._path)
        fresh = msgspec.structs.replace(known, gateways=view.gateways, relays=view.relays)
        if fresh != known:
            await trio.to_thread.run_sync(save_enrolment, self._path, fresh)
        return fresh

    async def _until_answered(self) -> Enrolment:
        failures = 0
        while True:
            try:
                return await self._enrol()
            except Unreachable as error:
                wait_s = backoff_s(failures, self._chance.random())
                log.warning(
                    "enrol.waiting", extra={"url": self._url, "reason": str(error), "retry_s": round(wait_s, 1)}
                )
                failures += 1
                await trio.sleep(wait_s)

    async def _enrol(self) -> Enrolment:
        view = await self._view()
        envelope = self._sealed(Enrol(host=self._host, clock_ms=wall_ms()), view)
        answer = await self._ask("POST", "/api/v1/nodes/enrol", EnrolView, content=envelope)
        if answer.peer_id != self._key.peer_id or answer.coordinator_key != view.coordinator_key:
            raise EnrolmentRefused("the coordinator's answer is about another node or key; check QUBIX_COORDINATOR_URL")
        enrolment = Enrolment(
            network=self._network,
            coordinator_url=self._url,
            coordinator_key=view.coordinator_key,
            account_id=answer.account_id,
            region=answer.region or next(iter(view.regions), "default"),
            gateways=answer.gateways or view.gateways,
            relays=view.relays,
        )
        await trio.to_thread.run_sync(save_enrolment, self._path, enrolment)
        log.info("enrol.done", extra={"peer": self._key.peer_id, "region": enrolment.region, "url": self._url})
        return enrolment

    def _sealed(self, message: Message, view: NetworkView) -> bytes:
        return seal(
            message,
            self._key,
            network=self._network,
            audience=bytes.fromhex(view.coordinator_key),
            incarnation=0,
            counter=0,
            expires_ms=view.clock_ms + _LIFE_MS,
        )

    async def say(self, path: str, message: Message, kind: type[T]) -> T:
        """A statement by the node's key that stands outside every session. Raises `Unreachable`, or `Fatal`: refused,
        or the coordinator is not the pinned one."""
        view, known = await self._view(), load_enrolment(self._path)
        if known is not None:
            known.check(network=self._network, coordinator_key=view.coordinator_key, path=self._path)
        return await self._ask("POST", path, kind, content=self._sealed(message, view))

    async def _view(self) -> NetworkView:
        view = await self._ask("GET", "/api/v1/network", NetworkView)
        if view.protocol_version != PROTOCOL_VERSION:
            raise Fatal(
                f"the coordinator speaks protocol {view.protocol_version}, this node {PROTOCOL_VERSION}: "
                "update the older one."
            )
        if self._expected_key and view.coordinator_key != self._expected_key:
            raise CoordinatorChanged(
                f"{self._url} has the key {view.coordinator_key[:16]}…, and {self._expected_key[:16]}… was expected. "
                "Check QUBIX_COORDINATOR_URL; if the operator says that the key was replaced, QUBIX_COORDINATOR_KEY."
            )
        if view.network != self._network:
            raise OtherNetwork(
                f"{self._url} serves the network {view.network!r}, this node is set to {self._network!r}. "
                f"Set QUBIX_NETWORK={view.network}, or use another coordinator."
            )
        return view

    async def _ask(self, method: str, path: str, kind: type[T], content: bytes | None = None) -> T:
        """Raises `Unreachable` for what may pass, `EnrolmentRefused` for what will not."""
        headers = {"Accept": "application/json", "Content-Type": "application/msgpack"}
        try:
            with trio.fail_after(_REQUEST_S):
                async with self._client.stream(method, self._url + path, content=content, headers=headers) as response:
                    body = await _bounded(response)
        except (httpx.TransportError, trio.TooSlowError) as error:
            raise Unreachable(str(error) or type(error).__name__) from error
        if response.status_code >= 500 or response.status_code in _RETRY_STATUS:
            raise Unreachable(f"HTTP status {response.status_code}")
        if not response.is_success:
            raise EnrolmentRefused(_problem_text(response, body))
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise EnrolmentRefused(f"{self._url} is not a QUBIX coordinator: {error}") from error


async def _bounded(response: httpx.Response) -> bytes:
    body = b""
    announced = response.headers.get("Content-Length", "0")
    if announced.isdecimal() and int(announced) > _ANSWER_BYTES_MAX:
        raise EnrolmentRefused(f"{response.url} announces {announced} bytes; at most {_ANSWER_BYTES_MAX} are read")
    async for part in response.aiter_bytes():
        body += part
        if len(body) > _ANSWER_BYTES_MAX:
            raise EnrolmentRefused(f"{response.url} answers with more than {_ANSWER_BYTES_MAX} bytes")
    return body


def _problem_text(response: httpx.Response, body: bytes) -> str:
    try:
        problem = msgspec.json.decode(body, type=Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        told = f"{response.url} answers with HTTP status {response.status_code}"
        return f"{told}, as no QUBIX coordinator does. Correct QUBIX_COORDINATOR_URL."
    return " ".join(part for part in (problem.title, problem.detail, problem.remedy) if part)
