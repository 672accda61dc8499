# SPDX-License-Identifier: Apache-2.0
"""The live feed of market and account: one WebSocket, taken up where it broke; what is told goes into a `Book`.

Who is not signed in looks at the market alone, until a token is there.
"""

import random
import time
from collections.abc import Callable
from typing import Final, NoReturn

import msgspec

from qubix.async_client import AsyncClient
from qubix.errors import QubixError
from qubix.follow import LIVE_PATH
from qubix.problems import error_of
from qubix.tokens import token_of
from qubix.transport import Disconnected, Reply, Socket
from qubix_protocol.account_news import BalanceNews, read_account_news
from qubix_protocol.api import AccountView, ListingView, LiveEvent, MarketDelta, Problem, Subscribe, TopicBody
from qubix_tui.book import Book
from qubix_tui.link import Link

MARKET, ACCOUNT = "market", "account"
RECEIVE_S: Final = 15.0
FIRST_S: Final = 0.2
LONGEST_S: Final = 3.0
"""Between tries to connect: below the five seconds of P10."""
LOOK_S: Final = 3.0
"""Between two looks whether somebody has signed in meanwhile, such as by `qubix wallet login` in another terminal."""
_STRANGE: Final = "the coordinator said what this version does not understand"


class Feed:
    """`link` says how the connection stands, `error` why it does not. `news` is called after each change of either."""

    def __init__(
        self,
        client: AsyncClient,
        book: Book,
        news: Callable[[], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._client, self.book, self._news = client, book, news
        self._clock, self._draw = clock, draw
        self.link = Link()
        self.account: AccountView | None = None
        self.error: QubixError | None = None
        self.visiting = False
        """Whether nobody is signed in here."""
        self._cursors: dict[str, str] = {}
        self._failures = 0

    def forget(self) -> None:
        """Starts anew: somebody else may ask now."""
        self._cursors, self.account, self.error, self._failures = {}, None, None, 0

    async def run(self) -> NoReturn:
        """Until it is cancelled."""
        while True:
            try:
                await self._follow()
            except Disconnected as problem:
                await self._lost(str(problem))
            except QubixError as refusal:
                self._cursors = {}
                self._fail(refusal)
            wait_s = min(LONGEST_S, FIRST_S * 2 ** min(self._failures, 8)) * (0.5 + self._draw() / 2)
            await self._client.session.port.sleep(wait_s)

    async def _follow(self) -> None:
        """As long as the same asks. Raises `Disconnected`, and `ApiError` when the coordinator refuses."""
        token = await self._token()
        self.visiting = not token
        self._client.session.port.use_token(token)
        topics = (MARKET,) if self.visiting else (MARKET, ACCOUNT)
        socket = await self._client.session.port.connect(LIVE_PATH)
        try:
            asked = Subscribe(subscribe=tuple(TopicBody(topic=one, cursor=self._cursors.get(one)) for one in topics))
            await socket.send(msgspec.json.encode(asked).decode())
            look_s = self._clock() + LOOK_S
            while True:
                await self._next(socket, LOOK_S if self.visiting else RECEIVE_S)
                if self.visiting and self._clock() >= look_s:
                    if await self._token():
                        return
                    look_s = self._clock() + LOOK_S
        finally:
            await socket.close()

    async def _token(self) -> str:
        """That of now: a market on this machine makes one when it is first started."""
        settings = self._client.settings
        return await self._client.session.port.aside(lambda: token_of(settings))

    async def _next(self, socket: Socket, wait_s: float) -> None:
        text = await socket.receive(wait_s)
        if text is None:
            return
        event = _event(text)
        self._failures, self.error = 0, None
        try:
            self._apply(event)
        except msgspec.MsgspecError:
            raise Disconnected(_STRANGE, sent=True) from None
        if event.cursor:
            self._cursors[event.topic] = event.cursor
        self.link.heard(self._clock())
        self._news()

    def _apply(self, event: LiveEvent) -> None:
        """What this version does not know is passed over."""
        if event.topic == ACCOUNT and event.kind in ("snapshot", "delta"):
            news = read_account_news(event.data)
            if isinstance(news, BalanceNews):
                self.account = news.account
        elif event.topic == MARKET and event.kind == "snapshot":
            self.book.snapshot(msgspec.convert(event.data, list[ListingView]), self._clock())
        elif event.topic == MARKET and event.kind == "more":
            self._change(MarketDelta(listings=msgspec.convert(event.data, tuple[ListingView, ...])))
        elif event.topic == MARKET and event.kind == "delta":
            self._change(msgspec.convert(event.data, MarketDelta))

    def _change(self, told: MarketDelta) -> None:
        for listing in told.listings:
            self.book.put(listing, self._clock())
        for listing_id in told.gone:
            self.book.gone(listing_id)

    async def _lost(self, problem: str) -> None:
        """Asks by HTTP what is the matter: a refusal is told with its remedy, and is not the network's fault."""
        self._fail(None, problem)
        try:
            if self.visiting:
                await self._client.search(limit=1)
            else:
                self.account = await self._client.account()
        except QubixError as error:
            self.error = error
        self._news()

    def _fail(self, error: QubixError | None, problem: str = "") -> None:
        self._failures += 1
        self.link.lost(problem or str(error))
        self.error = error
        self._news()


def _event(text: str | bytes) -> LiveEvent:
    """Raises `ApiError` for a refusal, which is a problem in place of an event."""
    try:
        return msgspec.json.decode(text, type=LiveEvent)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raw = text.encode() if isinstance(text, str) else text
        try:
            status = msgspec.json.decode(raw, type=Problem).status
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise Disconnected(_STRANGE, sent=True) from None
        raise error_of(Reply(status, {}, raw), "the live feed") from None
