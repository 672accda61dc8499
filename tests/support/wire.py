# SPDX-License-Identifier: Apache-2.0
"""A log of acknowledgements outside of all processes: a relay between gateway and coordinator that reads along.

What nodes said and what the coordinator acknowledged is noted before it is passed on, so that no killed process can
have taken it along.
"""

import contextlib
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Container
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import urlsplit

import msgspec

from qubix_protocol import codec, digests
from qubix_protocol.channel import Channel, SessionKeys, Side, exchange_in, label_of
from qubix_protocol.envelope import Header, peek_type
from qubix_protocol.errors import BadSignature, Malformed
from qubix_protocol.link import FromPeer, ToPeer, decode_coordinator, decode_gateway
from qubix_protocol.messages import Acknowledged, Progress, Report

M = TypeVar("M")
_BLOCK = 65536
_BINARY, _CONTINUED = 2, 0


class Messages:
    """Cuts the binary messages out of one direction of a WebSocket, beginning with its HTTP head."""

    def __init__(self, found: Callable[[bytes], None]) -> None:
        self._found, self._data, self._head = found, bytearray(), True
        self._message: bytearray | None = None

    def feed(self, data: bytes) -> None:
        self._data += data
        if self._head:
            end = self._data.find(b"\r\n\r\n")
            if end < 0:
                return
            del self._data[: end + 4]
            self._head = False
        while self._frame():
            pass

    def _frame(self) -> bool:
        """One frame (RFC 6455, 5.2), if it is here."""
        data = self._data
        if len(data) < 2:
            return False
        masked, size, at = data[1] & 0x80, data[1] & 0x7F, 2
        if size >= 126:
            extra = 2 if size == 126 else 8
            size, at = int.from_bytes(data[2 : 2 + extra]), 2 + extra
        mask = bytes(data[at : at + 4]) if masked else bytes(4)
        at += 4 if masked else 0
        if len(data) < at + size:
            return False
        payload = _unmasked(bytes(data[at : at + size]), mask)
        self._take(data[0], payload)
        del data[: at + size]
        return True

    def _take(self, first: int, payload: bytes) -> None:
        final, opcode = first & 0x80, first & 0x0F
        if opcode == _BINARY:
            self._message = bytearray(payload)
        elif opcode == _CONTINUED and self._message is not None:
            self._message += payload
        else:
            return
        if final:
            self._found(bytes(self._message))
            self._message = None


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    if not any(mask):
        return payload
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(size)


class Log:
    """By attempt: digests of the links that were said, how often they and reports were, and what was acknowledged.
    `key_log` is where the nodes write their sessions' keys; what nobody has a key for makes a test fail."""

    def __init__(self, key_log: Path) -> None:
        self._lock = threading.Lock()
        self._key_log = key_log
        self._sessions: defaultdict[str, list[SessionKeys]] = defaultdict(list)
        self.unreadable = 0
        self.times: defaultdict[tuple[str, int], int] = defaultdict(int)
        self.said: defaultdict[tuple[str, int], set[bytes]] = defaultdict(set)
        self.acknowledged: defaultdict[tuple[str, int | None], int] = defaultdict(int)
        self.reports: defaultdict[str, int] = defaultdict(int)

    def acknowledged_of(self, attempts: Container[str]) -> list[tuple[str, int | None]]:
        """What of these attempts was acknowledged: attempt and link, None for its report."""
        with self._lock:
            return [name for name in self.acknowledged if name[0] in attempts]

    def from_gateway(self, message: bytes) -> None:
        for item in decode_gateway(message):
            if isinstance(item, FromPeer):
                for frame in item.frames:
                    self._heard(item.peer_id, frame, Side.COORDINATOR, self._node_said)

    def from_coordinator(self, message: bytes) -> None:
        for item in decode_coordinator(message):
            if isinstance(item, ToPeer):
                for frame in item.frames:
                    if label_of(frame) != "challenge":
                        self._heard(item.peer_id, frame, Side.NODE, self._acknowledged)

    def _heard(self, peer_id: str, frame: bytes, reader: Side, then: Callable[[bytes], None]) -> None:
        """With the keys of the node's newest session first: an older one may still be on its way elsewhere."""
        with self._lock:
            if label_of(frame) == "hello":
                self._sessions[peer_id].insert(0, self._keys_of(exchange_in(frame)))
            sessions = list(self._sessions[peer_id])
        for keys in sessions:
            with contextlib.suppress(BadSignature, Malformed):
                raw = Channel(keys, reader).decrypt(frame)
                break
        else:
            with self._lock:
                self.unreadable += 1
            return
        then(raw)

    def _keys_of(self, exchange: bytes) -> SessionKeys:
        """Written down before the node said hello."""
        for line in self._key_log.read_text(encoding="ascii").splitlines():
            public, from_node, from_coordinator = (bytes.fromhex(word) for word in line.split())
            if public == exchange:
                return SessionKeys(from_node, from_coordinator)
        raise AssertionError(f"no keys of the session {exchange.hex()} in {self._key_log}")

    def _node_said(self, raw: bytes) -> None:
        kind = peek_type(raw)
        if kind == "progress":
            progress = _body(raw, Progress)
            if progress.link is not None:
                with self._lock:
                    name = progress.attempt_id, progress.link.index
                    self.said[name].add(digests.of_link(progress.link))
                    self.times[name] += 1
        elif kind == "report":
            with self._lock:
                self.reports[_body(raw, Report).attempt_id] += 1

    def _acknowledged(self, raw: bytes) -> None:
        if peek_type(raw) == "acknowledged":
            one = _body(raw, Acknowledged)
            with self._lock:
                self.acknowledged[one.attempt_id, one.link] += 1


def _body(raw: bytes, kind: type[M]) -> M:
    """Unverified: the relay is no judge."""
    signed, _ = msgspec.msgpack.decode(raw)
    value: M = codec.decode(codec.decode(signed, Header).body, kind)
    return value


class Relay:
    """`with Relay(url) as relay:` listens at `relay.url` and passes everything on to `url`, which may come and go."""

    def __init__(self, url: str, log: Log) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or 0)
        self._log = log
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._serve, name="relay", daemon=True)]
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        for one in list(self._open):
            _hang_up(one)
        for thread in self._threads[1:]:
            thread.join()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(self._target, timeout=10)
                except OSError:
                    near.close()
                    continue
                far.settimeout(None)
                self._open |= {near, far}
                self._pump(near, far, Messages(self._log.from_gateway))
                self._pump(far, near, Messages(self._log.from_coordinator))

    def _pump(self, source: socket.socket, sink: socket.socket, messages: Messages) -> None:
        def run() -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(_BLOCK):
                    messages.feed(data)
                    sink.sendall(data)
            _hang_up(sink)
            self._open.discard(source)
            source.close()

        thread = threading.Thread(target=run, name="relay-pump", daemon=True)
        self._threads.append(thread)
        thread.start()


def _hang_up(one: socket.socket) -> None:
    """Both directions: a killed process's peer must notice."""
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
