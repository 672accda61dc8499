# SPDX-License-Identifier: Apache-2.0
"""One job: where it stands and why, who works on it, what it costs, and what can be done about it."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from textual.binding import Binding, BindingType

from qubix.cli import rows, shown
from qubix.errors import BadUsage, QubixError
from qubix.job import AsyncJob
from qubix.receipts import JobReceipt
from qubix_kernels.onnx.signature import wire_names
from qubix_protocol.api import AttemptView, JobView
from qubix_protocol.arrays import Array
from qubix_protocol.disputes import DisputeView
from qubix_protocol.states import DONE_JOB_STATES, FINAL_JOB_STATES, AttemptState, JobState
from qubix_tui import columns, drawn, marks
from qubix_tui.link import ago
from qubix_tui.screens.sheets import SheetPage
from qubix_tui.told import told
from qubix_tui.widgets.ask import Field, Form, Question, Values
from qubix_tui.widgets.pairs import Sheet, pairs, section

AGAIN_S: Final = 3.0
_STOPPABLE: Final = frozenset(JobState) - DONE_JOB_STATES


class JobPage(SheetPage):
    place = "jobs"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.pop_screen", "Back"),
        Binding("w", "write", "Write result"),
        Binding("v", "receipt", "Receipt"),
        Binding("c", "cancel", "Cancel"),
        Binding("a", "accept", "Accept"),
        Binding("d", "dispute", "Dispute"),
    ]

    def __init__(self, job_id: str) -> None:
        super().__init__()
        self.job_id = job_id
        self._job: AsyncJob | None = None
        self._view: JobView | None = None
        self._eta_at_s: float | None = None
        self._error: QubixError | None = None
        self._receipt: JobReceipt | None = None
        self._following: asyncio.Task[Any] | None = None
        self._drawn: tuple[object, ...] = ()

    def on_mount(self) -> None:
        self._following = self.qubix.tasks.start(self._follow(), f"job {self.job_id}")

    async def on_unmount(self) -> None:
        if self._following is not None:
            await self.qubix.tasks.stop(self._following)

    async def _follow(self) -> None:
        """Until it is final. What fails is shown, and tried again."""
        while self._view is None or self._view.state not in FINAL_JOB_STATES:
            try:
                await self._look()
                self._error = None
            except QubixError as error:
                self._error = error
            await asyncio.sleep(AGAIN_S)

    async def _look(self) -> None:
        if self._job is None:
            self._job = await self.qubix.client.job(self.job_id)
        elif self._job.view.state in DONE_JOB_STATES:
            self._view = await self._job.refresh()
            return
        async for update in self._job.follow():
            self._error, self._view = None, update.view
            self._eta_at_s = None if update.eta_s is None else self.qubix.clock() + update.eta_s

    def tick(self) -> None:
        state = (self._view, self._error, self._receipt, int(self.qubix.clock()), self.size.width)
        if state != self._drawn:
            self._drawn = state
            self._draw(self.sheet)

    def _draw(self, sheet: Sheet) -> None:
        view, parts = self._view, []
        if self._error is not None:
            parts.append(section("Not up to date", [told(self._error).line()]))
        if view is not None:
            eta_s = None if self._eta_at_s is None else max(0.0, self._eta_at_s - self.qubix.clock())
            parts += [
                pairs(_standing(view, eta_s, self.size.width), title=f"Job {view.job_id}"),
                pairs([(name, f"{amount} QU") for name, amount in _money(view)], title="Money"),
                section("Attempts", _attempts(view, self.size.width - 4)),
                pairs([*self._devices(view)], title="Devices now"),
                pairs(_given(view), title="What it was given"),
            ]
        if self._receipt is not None:
            parts.append(section("Receipt, checked on this machine", self._receipt.words()))
        sheet.put(*parts)

    def _devices(self, view: JobView) -> list[tuple[str, str]]:
        """What the devices that work on it say of themselves now."""
        found, now_s = [], self.qubix.clock()
        for one in view.attempts:
            entry = self.qubix.book.get(one.listing_id or "")
            if one.state is not AttemptState.RUNNING or entry is None or entry.listing.metrics is None:
                continue
            reading = entry.listing.metrics
            heat = "" if reading.temperature_c is None else f"  {reading.temperature_c:.0f} °C"
            found.append((shown.ran_on(one.model, one.backend), f"{columns.use(entry, now_s).strip()}{heat}"))
        return found

    def words(self) -> str:
        return "" if self._view is None else marks.JOB[self._view.state]

    # What can be done about it

    def _on(self, what: str, states: frozenset[JobState], work: Callable[[AsyncJob, JobView], None]) -> None:
        """Only in these states; otherwise says why not."""
        if self._job is None or self._view is None:
            self.qubix.tell(self._error or BadUsage("job", "the job is not known yet", "Wait a moment."))
        elif self._view.state not in states:
            problem = f"a job that is {self._view.state} cannot be {what}"
            self.qubix.tell(BadUsage("state", problem, f"That goes while it is {' or '.join(sorted(states))}."))
        else:
            work(self._job, self._view)

    def _came(self, view: JobView) -> None:
        self._view = view
        self.qubix.say(f"The job is {view.state}: {view.reason_text}.")

    def _asked(self, title: str, text: str, work: Callable[[], Coroutine[Any, Any, JobView]], doing: str) -> None:
        def answered(agreed: bool | None) -> None:
            if agreed:
                self.act(work(), self._came, doing=doing)

        self.app.push_screen(Question(title, text), answered)

    def action_cancel(self) -> None:
        def ask(job: AsyncJob, view: JobView) -> None:
            text = f"What was checked is paid, the rest of {shown.qu(view.held_qu)} QU returns."
            self._asked("Stop this job?", text, job.cancel, "cancelling")

        self._on("cancelled", _STOPPABLE, ask)

    def action_accept(self) -> None:
        def ask(job: AsyncJob, view: JobView) -> None:
            text = f"Your word that the result is right: {shown.qu(view.owed_qu)} QU are paid at once."
            self._asked("Accept the result?", text, job.accept, "accepting")

        self._on("accepted", frozenset({JobState.DELIVERED}), ask)

    def action_dispute(self) -> None:
        states = frozenset({JobState.DELIVERED, JobState.SETTLED, JobState.FAILED, JobState.CANCELLED})
        self._on("disputed", states, lambda job, view: self._dispute(view))

    def _dispute(self, view: JobView) -> None:
        fields = (
            Field(name="statement", label="What is wrong with the result"),
            Field(name="attempt", label="Which attempt (its number; empty where only one was)"),
        )

        def check(values: Values) -> None:
            if not values["statement"]:
                raise BadUsage("statement", "a dispute needs a statement", "Say what is wrong and how it shows.")
            _attempt_of(values, view)

        def opened(found: DisputeView) -> None:
            self.qubix.say(f"The dispute is open, {shown.qu(found.bond_qu)} QU are staked. Disputes (7) shows it.")

        def filled(values: Values | None) -> None:
            if values is not None:
                attempt = _attempt_of(values, view)
                work = self.qubix.client.disputes.open(view.job_id, values["statement"], attempt=attempt)
                self.act(work, opened, doing="opening the dispute")

        text = "A bond is staked; who is right gets it back."
        self.app.push_screen(Form("Dispute this job's result", fields, text=text, check=check), filled)

    def action_write(self) -> None:
        self._on("written", DONE_JOB_STATES, lambda job, view: self._write(job))

    def _write(self, job: AsyncJob) -> None:
        async def written(folder: Path) -> list[Path]:
            outputs = await job.result(timeout_s=10.0)
            return await asyncio.to_thread(save, outputs, folder)

        def done(paths: list[Path]) -> None:
            self.qubix.say("Written: " + ", ".join(str(path) for path in paths))

        def filled(values: Values | None) -> None:
            if values is not None:
                folder = Path(values["folder"] or ".").expanduser()
                self.act(written(folder), done, doing="fetching the result")

        text = "Each output becomes NAME.npy; each part is checked against its digest."
        fields = (Field(name="folder", label="Folder", value=f"result-{self.job_id[:8]}"),)
        self.app.push_screen(Form("Write the result", fields, text=text), filled)

    def action_receipt(self) -> None:
        def ask(job: AsyncJob, view: JobView) -> None:
            def came(found: JobReceipt) -> None:
                self._receipt = found
                self.tick()
                self.call_after_refresh(self.scroller.scroll_end, animate=False)

            self.act(job.receipt(), came, doing="checking the receipt")

        self._on("proved", FINAL_JOB_STATES, ask)


def save(outputs: dict[str, Array], folder: Path) -> list[Path]:
    """Raises `OSError`. A model's outputs may be called anything: what becomes a file's name is plain."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name, plain in wire_names(outputs, ()).items():
        path = folder / f"{plain}.npy"
        np.save(path, outputs[name], allow_pickle=False)
        found.append(path)
    return found


def _attempt_of(values: Values, view: JobView) -> int | None:
    known = [one.fence for one in view.attempts]
    text = values["attempt"]
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or int(text) not in known:
        listed = ", ".join(map(str, known)) or "none"
        raise BadUsage("attempt", f"{text[:20]!r} is no attempt of this job", f"There are: {listed}.")
    return int(text)


def _standing(view: JobView, eta_s: float | None, width: int) -> list[tuple[str, str]]:
    room = max(12, min(50, width - 40))
    return [
        ("kernel", view.kernel),
        ("state", marks.JOB[view.state]),
        ("why", view.reason_text or str(view.reason)),
        ("detail", view.detail),
        ("done", f"{drawn.bar(view.fraction, room)} {view.fraction * 100:.1f} %"),
        ("units accepted", f"{view.units_accepted:,} of {view.units:,}"),
        ("expected finish", "" if eta_s is None else f"in {ago(eta_s)}"),
        ("accept until", shown.moment(view.accept_until_ms) if view.accept_until_ms else ""),
        ("created", shown.moment(view.created_ms)),
        ("ended", shown.moment(view.ended_ms) if view.ended_ms else f"at the latest {shown.moment(view.deadline_ms)}"),
        ("on rental", view.rental or ""),
    ]


def _money(view: JobView) -> list[tuple[str, str]]:
    owed = [("of it owed", shown.qu(view.owed_qu))] if view.owed_qu else []
    cap, held, *rest = rows.money(view)
    return [cap, held, *owed, *rest]


def _attempts(view: JobView, width: int) -> list[str]:
    found = []
    for one in view.attempts:
        found.append(f"{one.fence}  {marks.ATTEMPT[one.state]:<12} {shown.ran_on(one.model, one.backend)}"[:width])
        found += [f"   {line}" for line in _attempt(one)]
    return found or ["none yet"]


def _attempt(one: AttemptView) -> list[str]:
    said = one.detail or (str(one.reason) if one.reason != "none" else "")
    work = f"{one.units_accepted:,} of {one.units:,} units accepted, {one.units_done:,} done"
    time = ", ".join(
        f"{name} {shown.seconds(ms)}"
        for name, ms in (("ran", one.run_ms), ("billed", one.billed_ms), ("check", one.check_ms))
    )
    paid = f"paid {shown.qu(one.paid_qu)}, fee {shown.qu(one.fee_qu)} QU" if one.paid_qu or one.fee_qu else ""
    verdict = f"verdict {one.verdict}" if one.verdict else ""
    return [line for line in (said, work, time, ", ".join(part for part in (verdict, paid) if part)) if line]


def _given(view: JobView) -> list[tuple[str, str]]:
    params = [(name, shown.value(value)) for name, value in view.params.items()]
    inputs = [(name, f"{meta.dtype} {' × '.join(map(str, meta.shape))}") for name, meta in view.inputs.items()]
    return [*params, *inputs] or [("", "nothing")]
