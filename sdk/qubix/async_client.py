# SPDX-License-Identifier: Apache-2.0
"""The client, to await. `client.Client` is the same code without an event loop."""

import contextlib
import uuid
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from qubix import catalogue, describing, models, reserves, searching, settings, signing_in, tokens
from qubix.disputes import AsyncDisputes
from qubix.errors import NotFound, Unauthorised
from qubix.inputs import digest_of
from qubix.job import AsyncJob
from qubix.order_keys import AsyncOrderKeys
from qubix.orders import Terms, body_of, sign
from qubix.provider import AsyncProvider
from qubix.rental import AsyncRental, AsyncRentalGroup, chosen, start_group
from qubix.rental import start as start_rental
from qubix.session import Session
from qubix.settings import Settings
from qubix.signing_in import SignsText
from qubix.tokens import token_of
from qubix.transport import AsyncPort, Port
from qubix.uploads import OnUpload, upload
from qubix.wallet import Balance, Wallet
from qubix.watching import OffersUpdate, OffersWatch
from qubix_protocol.api import (
    AccountView,
    AuditView,
    EstimateBody,
    EstimateView,
    JobsView,
    JobView,
    KernelsView,
    ListingView,
    NetworkView,
    OffersView,
    ReadingsView,
    StatementView,
)
from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.deposits import ChainView, DepositIdentityView, DepositsView
from qubix_protocol.earnings import EarningsView, Period, WorksView
from qubix_protocol.history import HistoryView
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Sample
from qubix_protocol.models import ModelView
from qubix_protocol.rentals import RentalGroupView, RentalsView, RentalView
from qubix_protocol.reputation import ReputationView
from qubix_protocol.reserves import ReservesProof, ReservesView, view_of
from qubix_protocol.selftest import SelfTestBody, SelfTestView
from qubix_protocol.states import DeviceKind
from qubix_protocol.trials import TrialsView, TrialView
from qubix_protocol.wallets import (
    EndedView,
    PaymentProofBody,
    PaymentProofView,
    SessionsView,
    SessionView,
    SignedInView,
    WalletsView,
)
from qubix_protocol.withdrawals import (
    AddressBody,
    AddressesView,
    AddressView,
    PayoutBody,
    PayoutView,
    RefuseBody,
    WithdrawableView,
    WithdrawalBody,
    WithdrawalsView,
    WithdrawalView,
)


class AsyncClient:
    """One coordinator, as one account. `url`, `token` and `data_dir` win over the environment.

    Every method raises `CannotReach` when no coordinator answers, and an `ApiError` that names the field and the
    remedy when it refuses.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        data_dir: Path | str | None = None,
        settings: Settings | None = None,
        port: Port | None = None,
    ) -> None:
        self.settings: Final = settings_of(settings, url, token, data_dir)
        self._port = port or AsyncPort(self.settings, token_of(self.settings))
        self._session: Final = Session(self.settings, self._port)
        self._wallet: Wallet | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections; jobs go on."""
        await self._port.close()

    @property
    def wallet(self) -> Wallet:
        """The order key of the data folder, made at first use."""
        if self._wallet is None:
            self._wallet = Wallet.open(self.settings.data_dir)
        return self._wallet

    @property
    def disputes(self) -> AsyncDisputes:
        """What the account may do about results that it does not agree with."""
        return AsyncDisputes(self._session)

    @property
    def provider(self) -> AsyncProvider:
        """The devices of the account's nodes, from afar."""
        return AsyncProvider(self._session)

    @property
    def order_keys(self) -> AsyncOrderKeys:
        """The keys that sign the account's orders: this machine's, and those of others."""
        return AsyncOrderKeys(self._session, self.wallet)

    async def network(self) -> NetworkView:
        """Which network this is, and the coordinator's key, pinned at the first meeting."""
        return await self._session.network()

    async def account(self) -> AccountView:
        return await self._session.get("/account", AccountView)

    async def balance(self) -> Balance:
        view = await self.account()
        return Balance(available_qu=view.balance_qu, held_qu=view.held_qu)

    async def statement(self, *, after: str | None = None, limit: int = 50) -> StatementView:
        """The account's entries, newest first, at most 200; `next` of one page is `after` of the next."""
        return await self._session.get("/account/statement", StatementView, _page(after, limit))

    async def earnings(
        self,
        *,
        by: Period | str = Period.DAY,
        since_ms: int | None = None,
        until_ms: int | None = None,
        tz: str = "UTC",
    ) -> EarningsView:
        """What the account's nodes earned by day, ISO week or month of a time zone (an IANA name), and by device. The
        sums are the ledger's: `net_qu` is what the balance gained by work."""
        asked = {"by": str(by), "tz": tz, "since": since_ms, "until": until_ms}
        query: dict[str, str | int] = {name: value for name, value in asked.items() if value is not None}
        return await self._session.get("/account/earnings", EarningsView, query)

    async def work(self, *, after: str | None = None, limit: int = 50) -> WorksView:
        """The jobs and rentals that ran on the account's nodes, newest first; `next` of one page is `after` of the
        next."""
        return await self._session.get("/account/work", WorksView, _page(after, limit))

    async def deposit_identity(self) -> DepositIdentityView:
        """Where to send QU: the account's own identity, the same each time."""
        return await self._session.post("/account/deposit-identity", None, DepositIdentityView)

    async def deposits(self, *, after: str | None = None, limit: int = 50) -> DepositsView:
        """What came in, newest first; `next` of one page is `after` of the next."""
        return await self._session.get("/account/deposits", DepositsView, _page(after, limit))

    async def chain(self) -> ChainView:
        """How the Qubic network looks to this market, and why deposits or withdrawals wait."""
        return await self._session.get("/chain", ChainView)

    async def withdraw(self, destination: str, amount_qu: int, *, idempotency_key: str | None = None) -> WithdrawalView:
        """Sets the amount aside and sends it to a listed address; a repeated try is never a second withdrawal."""
        body = WithdrawalBody(destination=destination, amount_qu=amount_qu)
        return await self._session.post("/withdrawals", body, WithdrawalView, key=idempotency_key or str(uuid.uuid4()))

    async def withdrawal(self, withdrawal_id: str) -> WithdrawalView:
        """Where a withdrawal stands, why it waits, and its transactions."""
        return await self._session.get(f"/withdrawals/{withdrawal_id}", WithdrawalView)

    async def withdrawals(self, *, after: str | None = None, limit: int = 50) -> WithdrawalsView:
        """The account's withdrawals, newest first; `next` of one page is `after` of the next."""
        return await self._session.get("/withdrawals", WithdrawalsView, _page(after, limit))

    async def cancel_withdrawal(self, withdrawal_id: str) -> WithdrawalView:
        """Takes it back while no transaction is signed. Raises `Conflict` later."""
        return await self._session.post(f"/withdrawals/{withdrawal_id}/cancel", None, WithdrawalView)

    async def withdrawable(self) -> WithdrawableView:
        """How much can be withdrawn now, and why it is less than the balance."""
        return await self._session.get("/withdrawals/limits", WithdrawableView)

    async def addresses(self) -> tuple[AddressView, ...]:
        """Where withdrawals may go."""
        return (await self._session.get("/account/addresses", AddressesView)).addresses

    async def add_address(self, identity: str, label: str = "") -> AddressView:
        """Withdrawals to it may leave after a delay (`usable_ms`)."""
        return await self._session.post("/account/addresses", AddressBody(identity=identity, label=label), AddressView)

    async def remove_address(self, identity: str) -> tuple[AddressView, ...]:
        """At once; what waits for it is cancelled."""
        return (await self._session.post(f"/account/addresses/{identity}/remove", None, AddressesView)).addresses

    async def payout(self) -> PayoutView:
        """The account's standing order."""
        return await self._session.get("/account/payout", PayoutView)

    async def set_payout(self, destination: str, *, keep_qu: int, least_qu: int = 1) -> PayoutView:
        """From now on whatever can be withdrawn above `keep_qu` goes to `destination` by itself."""
        body = PayoutBody(destination=destination, keep_qu=keep_qu, least_qu=least_qu)
        return await self._session.post("/account/payout", body, PayoutView)

    async def stop_payout(self) -> PayoutView:
        return await self._session.post("/account/payout/stop", None, PayoutView)

    async def all_withdrawals(
        self, *, state: str | None = None, reason: str | None = None, after: str | None = None, limit: int = 50
    ) -> WithdrawalsView:
        """Everybody's (operators); `reason="approval"` and `"hot_limit"` wait for an operator."""
        asked = {name: value for name, value in (("state", state), ("reason", reason)) if value is not None}
        return await self._session.get("/operator/withdrawals", WithdrawalsView, _page(after, limit) | asked)

    async def approve_withdrawal(self, withdrawal_id: str) -> WithdrawalView:
        """Lets a large withdrawal go out (operators)."""
        return await self._session.post(f"/operator/withdrawals/{withdrawal_id}/approve", None, WithdrawalView)

    async def refuse_withdrawal(self, withdrawal_id: str, why: str) -> WithdrawalView:
        """Gives a waiting withdrawal back; its owner reads why (operators)."""
        body = RefuseBody(why=why)
        return await self._session.post(f"/operator/withdrawals/{withdrawal_id}/refuse", body, WithdrawalView)

    async def sign_in(self, wallet: SignsText, *, name: str = "") -> SignedInView:
        """Opens the account of the wallet's identity; the first time makes it. The session's token is kept in the data
        folder and used from now on, here and by clients to come. `name` is what the session is listed as.

        The text is read before it is signed: raises `NotGenuine` when it is not this coordinator's, at this address.
        """
        return await signing_in.sign_in(self._session, wallet, name)

    async def sign_in_by_key(self, key: SigningKey, *, name: str = "") -> SignedInView:
        """Opens the account that an Ed25519 key speaks for already, such as a node's: what it earned is there. Kept and
        used like the session of `sign_in`."""
        return await signing_in.by_key(self._session, key, name)

    async def sign_out(self) -> EndedView:
        """Ends the session of the last `sign_in` at this address, and forgets its token; not before it has ended, so
        that asking again ends it when this did not come through."""
        folder, url = self.settings.data_dir, self.settings.url
        kept = (await self._session.port.aside(lambda: tokens.read(folder))).get(url)
        if kept is None:
            return EndedView(ended=0)
        self._port.use_token(kept.token)
        try:
            with contextlib.suppress(NotFound, Unauthorised):  # it has ended already
                await self._session.delete(f"/sessions/{kept.session_id}", SessionsView)
            await self._session.port.aside(lambda: tokens.forget(folder, url))
        finally:
            self._port.use_token(token_of(self.settings))
        return EndedView(ended=1)

    async def wallets(self) -> WalletsView:
        """The account's wallets, what each may do, and both balances: in the market and on the chain."""
        return await self._session.get("/wallets", WalletsView)

    async def bind_wallet(self, wallet: SignsText) -> WalletsView:
        """Lets a wallet sign in to this account, and be paid out to. Raises `Conflict` when it opens another account,
        `NotGenuine` as `sign_in` does."""
        return await signing_in.bind(self._session, wallet)

    async def unbind_wallet(self, identity: str) -> WalletsView:
        """Its sessions end. Raises `Conflict` while a withdrawal to it is open, or when it is the last way in."""
        return await self._session.delete(f"/wallets/{identity}", WalletsView)

    async def prove_wallet_by_payment(self, identity: str) -> PaymentProofView:
        """For a wallet that cannot sign: the exact payment that proves it for pay-outs (never for signing in)."""
        body = PaymentProofBody(identity=identity)
        return await self._session.post("/wallet/payment-proof", body, PaymentProofView)

    async def sessions(self) -> tuple[SessionView, ...]:
        """Where the account is signed in, newest first, with the latest that ended."""
        return (await self._session.get("/sessions", SessionsView)).sessions

    async def end_session(self, session_id: str) -> tuple[SessionView, ...]:
        """One session, or one token of the account."""
        return (await self._session.delete(f"/sessions/{session_id}", SessionsView)).sessions

    async def end_sessions(self, *, this_too: bool = False) -> EndedView:
        """Every session of a wallet but this one."""
        return await self._session.delete("/sessions", EndedView, {"this_too": "true" if this_too else "false"})

    async def kernels(self) -> tuple[dict[str, Any], ...]:
        """What the market can run, each as its specification."""
        return (await self._session.get("/kernels", KernelsView)).kernels

    async def search(
        self,
        query: str = "",
        *,
        order: str = "",
        limit: int = 50,
        after: str | None = None,
        counts: bool = False,
        kind: DeviceKind | str | None = None,
        backend: str | None = None,
        provider: str | None = None,
    ) -> OffersView:
        """One page of the market. `query` is a query line (`gpu_ram>=8 price<500 region in [EU, US]`), `order` what to
        sort by (`score_per_qu-, price`); `after` is `next` of the page before. With `counts`, and where nothing is
        found, it says how many offers each filter leaves, and what relaxing it would find. Raises `BadUsage` that shows
        the place of what is wrong."""
        asked = searching.asked(query, order, kind, backend, provider) | {"limit": limit}
        asked |= {"after": after} if after is not None else {}
        asked |= {"counts": "true"} if counts else {}
        return await self._session.get("/offers", OffersView, asked)

    async def each_offer(self, query: str = "", *, order: str = "") -> AsyncGenerator[ListingView, None]:
        """All that `search` finds, asked for page by page as they are taken."""
        after: str | None = None
        while True:
            page = await self.search(query, order=order, limit=searching.PAGE, after=after)
            for one in page.offers:
                yield one
            after = page.next
            if after is None:
                return

    async def offers(
        self,
        query: str = "",
        *,
        order: str = "",
        kind: DeviceKind | str | None = None,
        backend: str | None = None,
        provider: str | None = None,
    ) -> tuple[ListingView, ...]:
        """The market now: every device for which all that is given holds, by price if no `order` is given."""
        asked = searching.asked(query, order, kind, backend, provider)
        found: list[ListingView] = []
        while True:
            page = await self._session.get("/offers", OffersView, asked)
            found += page.offers
            if page.next is None:
                return tuple(found)
            asked["after"] = page.next

    async def watch_offers(
        self, query: str = "", order: str = "", *, every_s: float | None = None
    ) -> AsyncGenerator[OffersUpdate, None]:
        """The offers that match, then every change of them once, for as long as it is gone through. A lost connection
        comes back by itself; updates say so, and how old the table is. With `every_s` one comes at least so often,
        with or without news. Raises `BadUsage` for a query or an order that is none."""
        async with contextlib.aclosing(OffersWatch(self._session, query, order, every_s).updates()) as updates:
            async for update in updates:
                yield update

    async def readings(self, listing_id: str, *, minutes: int = 60) -> tuple[Sample, ...]:
        """What the device behind a listing said of itself lately, oldest first: its load, heat, power and clocks."""
        return (await self._session.get(f"/offers/{listing_id}/readings", ReadingsView, {"minutes": minutes})).readings

    async def reputation(self, listing_id: str) -> ReputationView:
        """How reliable a device was so far, and what each part of that follows from."""
        return await self._session.get(f"/offers/{listing_id}/reputation", ReputationView)

    async def history(
        self, listing_id: str, *, since_ms: int | None = None, until_ms: int | None = None, points: int = 300
    ) -> HistoryView:
        """What a listing was like from `since_ms` (default: a day before its end) until `until_ms` (now): the readings
        of its device in at most `points` points, its price and its availability. A time without readings has no point.
        """
        asked = {"since": since_ms, "until": until_ms, "points": points}
        query: dict[str, str | int] = {name: value for name, value in asked.items() if value is not None}
        return await self._session.get(f"/offers/{listing_id}/history", HistoryView, query)

    async def selftest(self, listing_id: str) -> SelfTestView:
        """The device's last self-test, with the time at which it was heard; its node's word."""
        return await self._session.get(f"/offers/{listing_id}/selftest", SelfTestView)

    async def trials(self, listing_id: str) -> tuple[TrialView, ...]:
        """What the market tried of the device itself, newest first: its speed, and the memory that it held."""
        return (await self._session.get(f"/offers/{listing_id}/trials", TrialsView)).trials

    async def ask_selftest(self, listing_id: str, *, quick: bool = False) -> SelfTestView:
        """Has the device's node test it now (its owner, or an operator); `selftest` reads the outcome."""
        return await self._session.post(f"/offers/{listing_id}/selftest", SelfTestBody(quick=quick), SelfTestView)

    async def reserves(self) -> ReservesView:
        """The newest published proof of reserves, its signature checked against the pinned coordinator's key."""
        network = await self._session.network()
        found = await self._session.get("/reserves", ReservesView)
        said = reserves.read(found.statement, network.coordinator_key, network.network)
        return view_of(found.statement, said)

    async def reserves_proof(self) -> ReservesProof:
        """This account's own part of the published total, found in it here. Raises `NotGenuine` when it is not."""
        network = await self._session.network()
        found = await self._session.get("/reserves/proof", ReservesProof)
        reserves.check(found, network.coordinator_key, network.network)
        return found

    async def audit(self) -> AuditView:
        """The ledger's self-check (operators)."""
        return await self._session.get("/audit", AuditView)

    async def estimate(
        self,
        kernel: str,
        /,
        *,
        inputs: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        cap_qu: int | None = None,
        where: str | None = None,
        provider: str | None = None,
        rate_qu_per_h_max: int | None = None,
        deadline_s: int | None = None,
        region: str | None = None,
        **given: Any,
    ) -> EstimateView:
        """Time and cost on each device that could run it, in the order in which they would be asked, and why the others
        could not. The terms are those of `submit`; without them nobody is too dear or too slow. An array may be given
        by its form alone, as an `ArrayMeta`. Nothing is sent, but for a model that cannot be tried here.
        """
        terms = Terms.of(cap_qu or 0, where, provider, rate_qu_per_h_max, deadline_s or 0, None, None, region)
        asked = {**(inputs or {}), **(params or {}), **given}
        forms = {name: value for name, value in asked.items() if isinstance(value, ArrayMeta)}
        if kernel == models.KERNEL:
            asked = await describing.signed(self._session, asked)
            forms = {name: value for name, value in asked.items() if isinstance(value, ArrayMeta)}
        in_full = {name: value for name, value in asked.items() if name not in forms}
        work = await self._session.port.aside(lambda: catalogue.work_of(kernel, in_full, forms))
        metas = {name: source.meta for name, source in work.sources.items()} | dict(work.forms)
        body = EstimateBody(
            kernel=kernel,
            inputs=metas,
            params=dict(work.params),
            cap_qu=cap_qu,
            rate_qu_per_h_max=terms.rate_qu_per_h_max,
            provider=terms.provider,
            where=terms.where,
            deadline_s=deadline_s,
            region=region,
        )
        return await self._session.post("/jobs/estimate", body, EstimateView)

    async def submit(
        self,
        kernel: str,
        /,
        *,
        cap_qu: int,
        where: str | None = None,
        provider: str | None = None,
        rate_qu_per_h_max: int | None = None,
        deadline_s: int = 3_600,
        spread: int | None = None,
        rental: str | None = None,
        region: str | None = None,
        inputs: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        on_upload: OnUpload | None = None,
        **given: Any,
    ) -> AsyncJob:
        """Uploads the inputs, signs the order and starts the job; a repeated try is never a second job.

        Arrays and parameters are keyword arguments by the kernel's names (`a=a, b=b`, `k=5`), or `inputs=` and
        `params=` where a name is taken. An array is anything NumPy understands, or the path of a `.npy` file. At most
        `cap_qu` is ever paid. `where` is a query line as in a search: the job goes only to devices that it finds. A job
        that is long enough is spread over up to four devices of about the same price; `spread` sets how many at most,
        whatever they ask within your limits.
        `rental` is the id of a rental of yours: the job runs on its device and costs nothing further (`cap_qu=0`).
        A device in `region` is preferred to others that cost about the same.
        """
        terms = Terms.of(cap_qu, where, provider, rate_qu_per_h_max, deadline_s, spread, rental, region)
        aside, asked = self._session.port.aside, {**(inputs or {}), **(params or {}), **given}
        if kernel == models.KERNEL:
            asked = await describing.signed(self._session, asked, on_upload)
        work = await aside(lambda: catalogue.work_of(kernel, asked))
        found = {name: await aside(lambda source=source: digest_of(source)) for name, source in work.sources.items()}  # type: ignore[misc]
        work = replace(work, digests=found)
        body_of(work, terms)
        network = await self._session.network()
        for name, source in work.sources.items():
            await upload(self._session, source, found[name], on_upload)
        key = idempotency_key or str(uuid.uuid4())
        body = sign(work, terms, key, wallet=self.wallet, network=network, clock_ms=self._session.clock_ms())
        return AsyncJob(self._session, await self._session.post("/jobs", body, JobView, key=key))

    async def submit_model(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        /,
        *,
        cap_qu: int,
        whole: Collection[str] = (),
        **terms: Any,
    ) -> AsyncJob:
        """Runs an ONNX model over a batch; the result has the model's own outputs by name. `terms` as in `submit`.

        `model` is the path of an .onnx file or its bytes. `inputs` are by the model's names, axis 0 the batch; with one
        axis more than the model has, in front, each is a stack of inputs and the model runs for each by itself. Inputs
        without a batch (a sample rate, a first state) go to every row as they are: name them in `whole` where the model
        does not tell. One or two rows are tried first: here, with onnxruntime, or else by the market.
        """
        given = {**inputs, "model": model, **({"whole": tuple(whole)} if whole else {})}
        return await self.submit("onnx", cap_qu=cap_qu, inputs=given, **terms)

    async def describe_model(
        self,
        model: Any,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        whole: Collection[str] = (),
        on_upload: OnUpload | None = None,
    ) -> ModelView:
        """What the market finds in an ONNX model, in a box and free: what it takes and gives, what a unit costs, or
        why it is refused (`refusal`). Given as to `submit_model`; an input may be an `ArrayMeta`.
        Without inputs, shapes that the file leaves open are named in `needs`.
        """
        return await describing.describe(self._session, model, inputs or {}, whole, on_upload)

    async def job(self, job_id: str) -> AsyncJob:
        """A job that was submitted before. Raises `NotFound`, also for somebody else's."""
        return AsyncJob(self._session, await self._session.get(f"/jobs/{job_id}", JobView))

    async def jobs(self, *, after: str | None = None, limit: int = 50) -> JobsView:
        """The account's jobs, newest first; `next` of one page is `after` of the next."""
        return await self._session.get("/jobs", JobsView, _page(after, limit))

    async def rent(
        self,
        listing: str | None = None,
        *,
        seconds: int,
        rate_qu_per_h_max: int | None = None,
        cap_qu: int | None = None,
        kind: DeviceKind | str | None = None,
        backend: str | None = None,
        provider: str | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncRental:
        """Rents a device for a time: the one of this listing, or the cheapest free one for which all that is given
        holds.

        Rate × time is held, the rate frozen, and only time in which the device answers is billed; `cap_qu` holds less,
        and ends it when that is used up. Jobs submitted to it cost nothing further. As a context manager:

            async with await client.rent(seconds=600, kind="cuda") as rental:
                job = await rental.submit("matmul", a=a, b=b)
        """
        offers = await self.offers(kind=kind, backend=backend, provider=provider)
        found = chosen(offers, listing, rate_qu_per_h_max)
        key = idempotency_key
        view = await start_rental(self, found, seconds=seconds, rate_max=rate_qu_per_h_max, cap_qu=cap_qu, key=key)
        return AsyncRental(self, view)

    async def rent_group(
        self,
        listings: Sequence[str] = (),
        *,
        seconds: int,
        count: int | None = None,
        rate_qu_per_h_max: int | None = None,
        cap_qu: int | None = None,
        kind: DeviceKind | str | None = None,
        backend: str | None = None,
        provider: str | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncRentalGroup:
        """Rents several devices of one node together, all or none: these listings, or the cheapest `count` alike (node,
        kind, model) for which all that is given holds. `rate_qu_per_h_max` is for each, `cap_qu` for all together.

        Each is a rental of its own from then on: stop all of them by the group, or one by one.
        """
        offers = await self.offers(kind=kind, backend=backend, provider=provider)
        view = await start_group(
            self,
            offers,
            listings,
            count,
            seconds=seconds,
            rate_max=rate_qu_per_h_max,
            cap_qu=cap_qu,
            key=idempotency_key,
        )
        return AsyncRentalGroup(self, view)

    async def rental_group(self, group_id: str) -> AsyncRentalGroup:
        """Devices that were rented together before. Raises `NotFound`, also for somebody else's."""
        return AsyncRentalGroup(self, await self.session.get(f"/rental-groups/{group_id}", RentalGroupView))

    async def rental(self, rental_id: str) -> AsyncRental:
        """A rental that was started before. Raises `NotFound`, also for somebody else's."""
        return AsyncRental(self, await self.session.get(f"/rentals/{rental_id}", RentalView))

    async def rentals(self, *, after: str | None = None, limit: int = 50) -> RentalsView:
        """The account's rentals, newest first; `next` of one page is `after` of the next."""
        return await self.session.get("/rentals", RentalsView, _page(after, limit))

    @property
    def session(self) -> Session:
        """For what belongs to this client: its jobs and rentals."""
        return self._session

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.settings.url})"


def settings_of(given: Settings | None, url: str | None, token: str | None, data_dir: Path | str | None) -> Settings:
    changed: dict[str, Any] = {}
    if url is not None:
        changed["coordinator_url"] = url
    if token is not None:
        changed["token"] = token
    if data_dir is not None:
        changed["data_dir"] = Path(data_dir)
    return settings.checked(replace(given or settings.from_environment(), **changed))


def _page(after: str | None, limit: int) -> dict[str, str | int]:
    return {"limit": limit} | ({} if after is None else {"after": after})
