# SPDX-License-Identifier: Apache-2.0
"""One base URL: requests with a time limit, a size bound, and repeats after 429 and 5xx."""

import asyncio
import email.utils
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import httpx

from qubix_chain.rpc.errors import Malformed, Unreachable

ANSWER_BYTES_MAX: Final = 16 * 1024**2
"""A full tick's 4096 transactions with the longest payloads come to 8 MB."""
TRY_S: Final = 10.0
DEADLINE_S: Final = 30.0
TRIES_MAX: Final = 5
BACKOFF_FIRST_S: Final = 0.2
BACKOFF_MAX_S: Final = 5.0
_BUSY: Final = frozenset({408, 425, 429})
_NEVER: Final = 501  # what a server cannot do, it cannot do later either
_RANDOM: Final = random.SystemRandom()


class Answer(NamedTuple):
    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Limits:
    """`try_s` bounds one request, `deadline_s` all repeats of it together."""

    try_s: float = TRY_S
    deadline_s: float = DEADLINE_S
    tries_max: int = TRIES_MAX


class Http:
    """Answers below 500 but 408, 425 and 429 are given as they are, and 501; all else is repeated, then Unreachable."""

    def __init__(
        self,
        base_url: str,
        *,
        limits: Limits | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        draw: Callable[[], float] = _RANDOM.random,
    ) -> None:
        self.url = base_url.rstrip("/")
        self._limits = limits or Limits()
        self._draw = draw
        self._client = httpx.AsyncClient(
            base_url=self.url,
            timeout=self._limits.try_s,
            follow_redirects=False,
            transport=transport,
            limits=httpx.Limits(max_connections=32, max_keepalive_connections=32),
            headers={"Accept": "application/json", "User-Agent": "qubix"},
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def get(self, path: str) -> Answer:
        return await self._repeated("GET", path, None)

    async def post(self, path: str, body: Mapping[str, object]) -> Answer:
        """Only for requests that may be repeated: all of this API's are."""
        return await self._repeated("POST", path, body)

    async def _repeated(self, method: str, path: str, body: Mapping[str, object] | None) -> Answer:
        deadline_s = time.monotonic() + self._limits.deadline_s
        for attempt in range(self._limits.tries_max):
            try:
                return await self._once(method, path, body, deadline_s)
            except Unreachable as problem:
                pause_s = self._pause_s(attempt, problem.retry_after_s)
                if attempt + 1 >= self._limits.tries_max or time.monotonic() + pause_s >= deadline_s:
                    raise
                await asyncio.sleep(pause_s)
        raise AssertionError("unreachable: the last try returns or raises")

    def _pause_s(self, attempt: int, asked_s: float | None) -> float:
        """Exponential with full jitter, and never shorter than the server asked for."""
        backoff_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0**attempt) * self._draw()
        return backoff_s if asked_s is None else asked_s + backoff_s

    async def _once(self, method: str, path: str, body: Mapping[str, object] | None, deadline_s: float) -> Answer:
        limit_s = min(self._limits.try_s, max(0.001, deadline_s - time.monotonic()))
        try:
            async with asyncio.timeout(limit_s), self._client.stream(method, path, json=body) as answer:
                status = answer.status_code
                if status in _BUSY or (status >= 500 and status != _NEVER):
                    said = (await _bounded(answer, 4096, cut=True)).decode(errors="replace")[:200]
                    raise Unreachable(
                        f"{self.url}{path} answered {status}: {said}",
                        retry_after_s=retry_after_s(answer.headers.get("Retry-After"), time.time()),
                    )
                return Answer(status, await _bounded(answer, ANSWER_BYTES_MAX))
        except TimeoutError:
            raise Unreachable(f"{self.url}{path} did not answer within {limit_s:.3g} s") from None
        except httpx.InvalidURL as problem:
            raise Unreachable(f"{self.url} is no address: {problem}") from None
        except httpx.HTTPError as problem:
            raise Unreachable(f"{self.url}{path}: {type(problem).__name__} {problem}".rstrip()) from None


async def _bounded(answer: httpx.Response, bytes_max: int, *, cut: bool = False) -> bytes:
    found = bytearray()
    async for piece in answer.aiter_bytes():
        found += piece
        if len(found) > bytes_max:
            if cut:
                return bytes(found[:bytes_max])
            raise Malformed(f"the answer is longer than {bytes_max} bytes")
    return bytes(found)


def retry_after_s(text: str | None, now_s: float) -> float | None:
    """Seconds, from a number or a date; None for neither."""
    if text is None:
        return None
    if text.strip().isascii() and text.strip().isdigit():
        return float(text[:6])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now_s)
    except (TypeError, ValueError, OverflowError):
        return None
