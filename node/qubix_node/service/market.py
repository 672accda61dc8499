# SPDX-License-Identifier: Apache-2.0
"""The few things that the installed worker asks the coordinator, each signed by the node's key."""

import time
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import httpx
import msgspec

from qubix_node.service.trouble import Trouble
from qubix_protocol.api import NetworkView, Problem
from qubix_protocol.envelope import seal
from qubix_protocol.errors import ProtocolError
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Message
from qubix_protocol.pairing import NodePairingView, Pair
from qubix_protocol.worker import Manifest, NodeAsk, NodeSelfView, SignedManifest, believed

T = TypeVar("T")
_ANSWER_S: Final = 20.0
_LIFE_MS: Final = 60_000
_FILE_BYTES_MAX: Final = 64 * 1024 * 1024
_TRY_LATER: Final = "Look at the network, then run the same again"


@dataclass(frozen=True, slots=True)
class Market:
    """`coordinator_key`: pinned when the worker was installed."""

    client: httpx.Client
    url: str
    coordinator_key: str
    network: str

    def pair(self, key: SigningKey, code: str) -> NodePairingView:
        return self._say(key, "/api/v1/nodes/pair", Pair(code=code, clock_ms=_wall_ms()), NodePairingView)

    def node(self, key: SigningKey) -> NodeSelfView:
        return self._say(key, "/api/v1/nodes/self", NodeAsk(clock_ms=_wall_ms()), NodeSelfView)

    def manifest(self) -> Manifest:
        signed = self._get("/worker/manifest", SignedManifest)
        try:
            return believed(signed, bytes.fromhex(self.coordinator_key))
        except ProtocolError as problem:
            raise Trouble(
                "List of files", str(problem), "the coordinator's signature", "Ask the operator; install nothing"
            ) from None

    def file(self, sha256: str, name: str) -> bytes:
        answer = self._request("GET", f"/worker/files/{sha256}/{name}")
        if len(answer) > _FILE_BYTES_MAX:
            raise Trouble("Download", f"{name} is too large", f"at most {_FILE_BYTES_MAX} bytes", "Ask the operator")
        return answer

    def _say(self, key: SigningKey, path: str, message: Message, kind: type[T]) -> T:
        view = self._get("/api/v1/network", NetworkView)
        if view.coordinator_key != self.coordinator_key or view.network != self.network:
            raise Trouble(
                "Coordinator",
                f"{self.url} answers with the key {view.coordinator_key[:16]}… on the network {view.network}",
                f"the key {self.coordinator_key[:16]}… on the network {self.network}",
                "Somebody may stand between. If the operator says that the key was replaced, install again",
            )
        statement = seal(
            message,
            key,
            network=view.network,
            audience=bytes.fromhex(view.coordinator_key),
            incarnation=0,
            counter=0,
            expires_ms=view.clock_ms + _LIFE_MS,
        )
        headers = {"Content-Type": "application/msgpack"}
        return _decoded(self._request("POST", path, content=statement, headers=headers), kind)

    def _get(self, path: str, kind: type[T]) -> T:
        return _decoded(self._request("GET", path), kind)

    def _request(self, method: str, path: str, **more: Any) -> bytes:
        try:
            answer = self.client.request(method, self.url + path, timeout=_ANSWER_S, **more)
        except httpx.HTTPError as problem:
            raise Trouble(
                "Way to the coordinator",
                str(problem) or type(problem).__name__,
                f"an answer from {self.url}",
                _TRY_LATER,
            ) from None
        if not answer.is_success:
            raise _refused(answer)
        return answer.content


def _refused(answer: httpx.Response) -> Trouble:
    try:
        told = msgspec.json.decode(answer.content, type=Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Trouble(
            "Coordinator", f"HTTP status {answer.status_code}", "an answer of a QUBIX coordinator", _TRY_LATER
        )
    return Trouble("Coordinator", told.detail or told.title, "a request that it grants", told.remedy or _TRY_LATER)


def _decoded(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
        raise Trouble(
            "Coordinator", f"its answer cannot be read: {problem}", "a QUBIX coordinator", _TRY_LATER
        ) from None


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
