# SPDX-License-Identifier: Apache-2.0
"""What `/live` can be asked for: whose it is, its state, and where its changes come from."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from qubix_coordinator.accounts import pairings
from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.disputes import service as disputes
from qubix_coordinator.errors import InvalidInput, LimitExceeded, Unauthorised
from qubix_coordinator.feed import watchers as feed
from qubix_coordinator.feed.rules import Shown
from qubix_coordinator.http import money
from qubix_coordinator.http.context import Context
from qubix_coordinator.http.routes import TOKEN_REMEDY
from qubix_coordinator.jobs import service as jobs
from qubix_coordinator.models import service as models
from qubix_coordinator.outbox import Cursor, parse_cursor
from qubix_coordinator.rentals import service as rentals
from qubix_protocol.account_news import BalanceNews
from qubix_protocol.api import Subscribe, TopicBody
from qubix_protocol.query import QueryError, order_text, ordered, parse, parse_order

MARKET: Final = "market"
ACCOUNT: Final = "account"
_LISTING: Final = "listing:"
_JOB: Final = "job:"
_RENTAL: Final = "rental:"
_DISPUTE: Final = "dispute:"
_PAIRING: Final = "pairing:"
_MODEL: Final = "model:"
QUERIES_MAX: Final = 8
"""On one connection."""


class Own(NamedTuple):
    """A topic of one account: whose it is, its name, and what the outbox calls it."""

    who: Principal
    name: str
    source: str
    cursor: Cursor | None


class Shared(NamedTuple):
    """A part of the market, which many may watch."""

    topic: feed.Topic
    order: str
    sort: feed.Sort
    cursor: Cursor | None


def asked(wanted: Subscribe) -> list[TopicBody]:
    """Each once. Raises InvalidInput."""
    plain = [one if isinstance(one, TopicBody) else TopicBody(topic=one) for one in wanted.subscribe]
    if wanted.cursor is not None:
        if len(plain) > 1:
            raise InvalidInput(
                "cursor",
                "each topic has a cursor of its own",
                'Resume each with its last one: {"subscribe": [{"topic": …, "cursor": …}, …]}',
            )
        plain = [TopicBody(topic=one.topic, query=one.query, order=one.order, cursor=wanted.cursor) for one in plain]
    if sum(1 for one in plain if one.query) > QUERIES_MAX:
        raise LimitExceeded(
            f"one connection watches at most {QUERIES_MAX} queries",
            field="subscribe",
            remedy="Open another connection, or ask for less with one query",
        )
    return list({(one.topic, one.query): one for one in plain}.values())


async def resolve(context: Context, who: Principal | None, body: TopicBody) -> Own | Shared:
    """Raises InvalidInput for what is no topic, NotFound for what is somebody else's, Unauthorised when a visitor
    asks for what is anybody's own."""
    cursor = _cursor(body.cursor) if body.cursor else None
    if body.topic == MARKET:
        return _market(body, cursor)
    if body.query or body.order:
        raise InvalidInput("subscribe", f"{body.topic} takes no query and no order", "Send them with the topic market")
    if body.topic.startswith(_LISTING):
        key = str(_uuid(body.topic.removeprefix(_LISTING), "listing"))
        return Shared(feed.Topic(f"{_LISTING}{key}", lambda one: one.listing_id == key, key), "", tuple, cursor)
    if who is None:
        raise Unauthorised(f"{body.topic} is not there for everybody", field="token", remedy=TOKEN_REMEDY)
    name = await _own(context, who, body.topic)
    return Own(who, name, f"account:{who.account_id}" if name == ACCOUNT else name, cursor)


def _market(body: TopicBody, cursor: Cursor | None) -> Shared:
    try:
        query, keys = parse(body.query), parse_order(body.order)
    except QueryError as error:
        raise InvalidInput("subscribe", str(error), error.remedy) from None
    name = f"{MARKET}?{body.query}" if body.query else MARKET

    def sort(shown: Sequence[Shown]) -> Sequence[Shown]:
        by_id = {one.view.listing_id: one for one in shown}
        return [by_id[view.listing_id] for view in ordered((one.view for one in shown), keys)]

    return Shared(feed.Topic(name, query.matches), order_text(keys), sort, cursor)


async def _own(context: Context, who: Principal, name: str) -> str:
    if name == ACCOUNT:
        return ACCOUNT
    if name.startswith(_JOB):
        job_id = _uuid(name.removeprefix(_JOB), "job")
        await jobs.get(context.desk, who, str(job_id))
        return f"{_JOB}{job_id}"
    if name.startswith(_RENTAL):
        rental_id = _uuid(name.removeprefix(_RENTAL), "rental")
        await rentals.get(context.desk, who, str(rental_id))
        return f"{_RENTAL}{rental_id}"
    if name.startswith(_DISPUTE):
        dispute_id = _uuid(name.removeprefix(_DISPUTE), "dispute")
        await disputes.get(context.desk, who, dispute_id)
        return f"{_DISPUTE}{dispute_id}"
    if name.startswith(_PAIRING):
        pairing_id = _uuid(name.removeprefix(_PAIRING), "pairing")
        await context.db.run(lambda tx: pairings.view(tx, who.account_id, pairing_id))
        return pairings.topic(pairing_id)
    if name.startswith(_MODEL):
        model_id = _uuid(name.removeprefix(_MODEL), "model")
        await context.db.run(lambda tx: models.read(tx, who.account_id, model_id, now_ms=context.now_ms()))
        return models.topic(model_id)
    known = "Use market, listing:ID, account, job:ID, rental:ID, dispute:ID, pairing:ID, or model:ID"
    raise InvalidInput("subscribe", f"there is no topic {name!r}", known)


async def state(context: Context, who: Principal, name: str) -> Any:
    if name == ACCOUNT:
        return BalanceNews(account=await money.account(context.db, who))
    if name.startswith(_RENTAL):
        return await rentals.get(context.desk, who, name.removeprefix(_RENTAL))
    if name.startswith(_DISPUTE):
        return await disputes.get(context.desk, who, UUID(name.removeprefix(_DISPUTE)))
    if name.startswith(_PAIRING):
        pairing_id = UUID(name.removeprefix(_PAIRING))
        return await context.db.run(lambda tx: pairings.view(tx, who.account_id, pairing_id))
    if name.startswith(_MODEL):
        model_id = UUID(name.removeprefix(_MODEL))
        return await context.db.run(lambda tx: models.read(tx, who.account_id, model_id, now_ms=context.now_ms()))
    return await jobs.get(context.desk, who, name.removeprefix(_JOB))


def _uuid(text: str, what: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise InvalidInput("subscribe", f"{text!r} is not the id of a {what}", f"Use {what}:ID") from None


def _cursor(text: str) -> Cursor:
    found = parse_cursor(text)
    if found is None:
        raise InvalidInput("cursor", f"{text!r} is not a cursor", "Send the last cursor you got, or none")
    return found
