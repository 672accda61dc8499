# SPDX-License-Identifier: Apache-2.0
"""The synchronous client: `AsyncClient`'s own code over a port that blocks (see `blocking`)."""

from pathlib import Path
from types import TracebackType
from typing import Final, Self

from qubix.async_client import AsyncClient, settings_of
from qubix.blocking import blocking, blocking_as, iterating
from qubix.disputes import AsyncDisputes
from qubix.job import AsyncJob
from qubix.order_keys import AsyncOrderKeys
from qubix.provider import AsyncProvider
from qubix.rental import AsyncRental, AsyncRentalGroup
from qubix.settings import Settings
from qubix.tokens import token_of
from qubix.transport import BlockingPort, Port
from qubix.wallet import Wallet
from qubix_protocol.api import JobView
from qubix_protocol.rentals import RentalGroupView, RentalView


class Job:
    """A submitted job. Every method is documented at `AsyncJob`."""

    def __init__(self, core: AsyncJob) -> None:
        self.core: Final = core

    @property
    def id(self) -> str:
        return self.core.id

    @property
    def view(self) -> JobView:
        """What was heard last."""
        return self.core.view

    refresh = blocking(AsyncJob.refresh)
    follow = iterating(AsyncJob.follow)
    wait = blocking(AsyncJob.wait)
    result = blocking(AsyncJob.result)
    receipts = blocking(AsyncJob.receipts)
    receipt = blocking(AsyncJob.receipt)
    cancel = blocking(AsyncJob.cancel)
    accept = blocking(AsyncJob.accept)
    settle = blocking(AsyncJob.settle)

    def __repr__(self) -> str:
        return f"Job({self.id}, {self.view.state})"


class Rental:
    """A rented device. Every method is documented at `AsyncRental`; as a context manager it stops at the end."""

    def __init__(self, core: AsyncRental) -> None:
        self.core: Final = core

    def __enter__(self) -> Self:
        self.wait_started()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def id(self) -> str:
        return self.core.id

    @property
    def view(self) -> RentalView:
        """What was heard last."""
        return self.core.view

    @property
    def over(self) -> bool:
        return self.core.over

    refresh = blocking(AsyncRental.refresh)
    follow = iterating(AsyncRental.follow)
    wait_started = blocking(AsyncRental.wait_started)
    wait = blocking(AsyncRental.wait)
    submit = blocking_as(Job, AsyncRental.submit)
    submit_model = blocking_as(Job, AsyncRental.submit_model)
    extend = blocking(AsyncRental.extend)
    stop = blocking(AsyncRental.stop)
    settle = blocking(AsyncRental.settle)

    def __repr__(self) -> str:
        return f"Rental({self.id}, {self.view.state})"


class RentalGroup:
    """Devices rented together. Every method is documented at `AsyncRentalGroup`."""

    def __init__(self, core: AsyncRentalGroup) -> None:
        self.core: Final = core
        self.rentals: Final = tuple(Rental(one) for one in core.rentals)

    def __enter__(self) -> Self:
        self.wait_started()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def id(self) -> str:
        return self.core.id

    @property
    def view(self) -> RentalGroupView:
        """What was heard last."""
        return self.core.view

    @property
    def over(self) -> bool:
        return self.core.over

    refresh = blocking(AsyncRentalGroup.refresh)
    wait_started = blocking(AsyncRentalGroup.wait_started)
    stop = blocking(AsyncRentalGroup.stop)

    def __repr__(self) -> str:
        return f"RentalGroup({self.id}, {len(self.rentals)} devices)"


class Provider:
    """Every method is documented at `AsyncProvider`."""

    def __init__(self, core: AsyncProvider) -> None:
        self.core: Final = core

    devices = blocking(AsyncProvider.devices)
    wish = blocking(AsyncProvider.wish)


class OrderKeys:
    """Every method is documented at `AsyncOrderKeys`."""

    def __init__(self, core: AsyncOrderKeys) -> None:
        self.core: Final = core

    list = blocking(AsyncOrderKeys.list)
    request = blocking(AsyncOrderKeys.request)
    read = blocking(AsyncOrderKeys.read)
    add = blocking(AsyncOrderKeys.add)
    revoke = blocking(AsyncOrderKeys.revoke)
    trust_wallet = blocking(AsyncOrderKeys.trust_wallet)


class Disputes:
    """Every method is documented at `AsyncDisputes`."""

    def __init__(self, core: AsyncDisputes) -> None:
        self.core: Final = core

    open = blocking(AsyncDisputes.open)
    list = blocking(AsyncDisputes.list)
    get = blocking(AsyncDisputes.get)
    answer = blocking(AsyncDisputes.answer)
    add = blocking(AsyncDisputes.add)
    withdraw = blocking(AsyncDisputes.withdraw)
    all = blocking(AsyncDisputes.all)
    judge = blocking(AsyncDisputes.judge)
    decide = blocking(AsyncDisputes.decide)


class Client:
    """One coordinator, as one account. Every method is documented at `AsyncClient`. Not to be shared by threads."""

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        data_dir: Path | str | None = None,
        settings: Settings | None = None,
        port: Port | None = None,
    ) -> None:
        found = settings_of(settings, url, token, data_dir)
        self.core: Final = AsyncClient(settings=found, port=port or BlockingPort(found, token_of(found)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def settings(self) -> Settings:
        return self.core.settings

    @property
    def wallet(self) -> Wallet:
        return self.core.wallet

    @property
    def disputes(self) -> Disputes:
        return Disputes(self.core.disputes)

    @property
    def provider(self) -> Provider:
        return Provider(self.core.provider)

    @property
    def order_keys(self) -> OrderKeys:
        return OrderKeys(self.core.order_keys)

    network = blocking(AsyncClient.network)
    account = blocking(AsyncClient.account)
    balance = blocking(AsyncClient.balance)
    statement = blocking(AsyncClient.statement)
    earnings = blocking(AsyncClient.earnings)
    work = blocking(AsyncClient.work)
    deposit_identity = blocking(AsyncClient.deposit_identity)
    deposits = blocking(AsyncClient.deposits)
    chain = blocking(AsyncClient.chain)
    withdraw = blocking(AsyncClient.withdraw)
    withdrawal = blocking(AsyncClient.withdrawal)
    withdrawals = blocking(AsyncClient.withdrawals)
    cancel_withdrawal = blocking(AsyncClient.cancel_withdrawal)
    withdrawable = blocking(AsyncClient.withdrawable)
    addresses = blocking(AsyncClient.addresses)
    add_address = blocking(AsyncClient.add_address)
    remove_address = blocking(AsyncClient.remove_address)
    payout = blocking(AsyncClient.payout)
    set_payout = blocking(AsyncClient.set_payout)
    stop_payout = blocking(AsyncClient.stop_payout)
    all_withdrawals = blocking(AsyncClient.all_withdrawals)
    approve_withdrawal = blocking(AsyncClient.approve_withdrawal)
    refuse_withdrawal = blocking(AsyncClient.refuse_withdrawal)
    sign_in = blocking(AsyncClient.sign_in)
    sign_in_by_key = blocking(AsyncClient.sign_in_by_key)
    sign_out = blocking(AsyncClient.sign_out)
    wallets = blocking(AsyncClient.wallets)
    bind_wallet = blocking(AsyncClient.bind_wallet)
    unbind_wallet = blocking(AsyncClient.unbind_wallet)
    prove_wallet_by_payment = blocking(AsyncClient.prove_wallet_by_payment)
    sessions = blocking(AsyncClient.sessions)
    end_session = blocking(AsyncClient.end_session)
    end_sessions = blocking(AsyncClient.end_sessions)
    kernels = blocking(AsyncClient.kernels)
    search = blocking(AsyncClient.search)
    each_offer = iterating(AsyncClient.each_offer)
    offers = blocking(AsyncClient.offers)
    watch_offers = iterating(AsyncClient.watch_offers)
    readings = blocking(AsyncClient.readings)
    history = blocking(AsyncClient.history)
    reputation = blocking(AsyncClient.reputation)
    selftest = blocking(AsyncClient.selftest)
    ask_selftest = blocking(AsyncClient.ask_selftest)
    trials = blocking(AsyncClient.trials)
    audit = blocking(AsyncClient.audit)
    reserves = blocking(AsyncClient.reserves)
    reserves_proof = blocking(AsyncClient.reserves_proof)
    estimate = blocking(AsyncClient.estimate)
    submit = blocking_as(Job, AsyncClient.submit)
    submit_model = blocking_as(Job, AsyncClient.submit_model)
    describe_model = blocking(AsyncClient.describe_model)
    job = blocking_as(Job, AsyncClient.job)
    jobs = blocking(AsyncClient.jobs)
    rent = blocking_as(Rental, AsyncClient.rent)
    rent_group = blocking_as(RentalGroup, AsyncClient.rent_group)
    rental_group = blocking_as(RentalGroup, AsyncClient.rental_group)
    rental = blocking_as(Rental, AsyncClient.rental)
    rentals = blocking(AsyncClient.rentals)
    close = blocking(AsyncClient.close)

    def __repr__(self) -> str:
        return f"Client({self.settings.url})"
