# SPDX-License-Identifier: Apache-2.0
"""The client, to await. `client.Client` is the same code without an event loop."""

import uuid
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from qubix import catalogue, files, settings
from qubix.inputs import digest_of
from qubix.job import AsyncJob
from qubix.orders import Terms, body_of, sign
from qubix.session import Session
from qubix.settings import TOKEN_FILE, Settings
from qubix.transport import AsyncPort, Port
from qubix.uploads import OnUpload, upload
from qubix.wallet import Balance, Wallet
from qubix_protocol.api import (
    AccountView,
    AuditView,
    CreditBody,
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
from qubix_protocol.messages import Sample
from qubix_protocol.states import DeviceKind


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

    async def network(self) -> NetworkView:
        """Which network this is, and the coordinator's key, pinned at the first meeting."""
        return await self._session.network()

    async def account(self) -> AccountView:
        return await self._session.get("/account", AccountView)

    async def balance(self) -> Balance:
        view = await self.account()
        return Balance(available_qu=view.balance_qu, held_qu=view.held_qu)

    async def credit(self, amount_qu: int) -> AccountView:
        """Development credit: impossible on the main network."""
        body = CreditBody(amount_qu=amount_qu)
        return await self._session.post("/account/credit", body, AccountView, repeatable=False)

    async def statement(self, *, after: str | None = None, limit: int = 50) -> StatementView:
        """The account's entries, newest first, at most 200; `next` of one page is `after` of the next."""
        return await self._session.get("/account/statement", StatementView, _page(after, limit))

    async def kernels(self) -> tuple[dict[str, Any], ...]:
        """What the market can run, each as its specification."""
        return (await self._session.get("/kernels", KernelsView)).kernels

    async def offers(
        self, *, kind: DeviceKind | str | None = None, backend: str | None = None, provider: str | None = None
    ) -> tuple[ListingView, ...]:
        """The market now: devices for which all that is given holds."""
        asked = {"kind": kind, "backend": backend, "provider": provider}
        query: dict[str, str | int] = {name: str(value) for name, value in asked.items() if value is not None}
        return (await self._session.get("/offers", OffersView, query)).offers

    async def readings(self, listing_id: str, *, minutes: int = 60) -> tuple[Sample, ...]:
        """What the device behind a listing said of itself lately, oldest first: its load, heat, power and clocks."""
        return (await self._session.get(f"/offers/{listing_id}/readings", ReadingsView, {"minutes": minutes})).readings

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
        **given: Any,
    ) -> EstimateView:
        """Time and price by candidate. An array may be given by its form alone, as an `ArrayMeta`."""
        asked = {**(inputs or {}), **(params or {}), **given}
        forms = {name: value for name, value in asked.items() if isinstance(value, ArrayMeta)}
        in_full = {name: value for name, value in asked.items() if name not in forms}
        work = await self._session.port.aside(lambda: catalogue.work_of(kernel, in_full, forms))
        metas = {name: source.meta for name, source in work.sources.items()} | dict(work.forms)
        body = EstimateBody(kernel=kernel, inputs=metas, params=dict(work.params))
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
        inputs: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        on_upload: OnUpload | None = None,
        **given: Any,
    ) -> AsyncJob:
        """Uploads the inputs, signs the order and starts the job; a repeated try is never a second job.

        Arrays and parameters are keyword arguments by the kernel's names (`a=a, b=b`, `k=5`), or `inputs=` and
        `params=` where a name is taken. An array is anything NumPy understands, or the path of a `.npy` file. At most
        `cap_qu` is ever paid. `where` takes `provider=…` and `price<=…`. A job that is long enough is spread over up to
        four devices of about the same price; `spread` sets how many at most, whatever they ask within your limits.
        """
        terms = Terms.of(cap_qu, where, provider, rate_qu_per_h_max, deadline_s, spread)
        aside, asked = self._session.port.aside, {**(inputs or {}), **(params or {}), **given}
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
        does not tell. One or two rows are tried here first, with onnxruntime.
        """
        given = {**inputs, "model": model, **({"whole": tuple(whole)} if whole else {})}
        return await self.submit("onnx", cap_qu=cap_qu, inputs=given, **terms)

    async def job(self, job_id: str) -> AsyncJob:
        """A job that was submitted before. Raises `NotFound`, also for somebody else's."""
        return AsyncJob(self._session, await self._session.get(f"/jobs/{job_id}", JobView))

    async def jobs(self, *, after: str | None = None, limit: int = 50) -> JobsView:
        """The account's jobs, newest first; `next` of one page is `after` of the next."""
        return await self._session.get("/jobs", JobsView, _page(after, limit))

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


def token_of(found: Settings) -> str:
    """The API token: the setting, or the file that `qubix up` leaves; "" when there is neither."""
    if found.token:
        return found.token
    return (files.read_private(found.data_dir / TOKEN_FILE) or b"").decode("ascii", "replace").strip()


def _page(after: str | None, limit: int) -> dict[str, str | int]:
    return {"limit": limit} | ({} if after is None else {"after": after})
