# SPDX-License-Identifier: Apache-2.0
"""The account's jobs, newest first."""

from collections.abc import Sequence
from typing import Any, ClassVar

from textual.binding import Binding, BindingType

from qubix.cli import shown
from qubix_protocol.api import JobView
from qubix_tui import marks
from qubix_tui.columns import Column
from qubix_tui.screens.job import JobPage
from qubix_tui.screens.lists import LIMIT, ListPage


class JobsPage(ListPage[JobView]):
    place = "jobs"
    none_yet = "No jobs yet.\nThe Run screen (2) starts one."
    columns: ClassVar[Sequence[Column[Any]]] = (
        Column(name="job", width=9, text=lambda one, _: f"{one.job_id[:8]}"),
        Column(name="kernel", width=11, text=lambda one, _: one.kernel),
        Column(name="state", width=11, text=lambda one, _: marks.JOB[one.state]),
        Column(name="why", width=12, text=lambda one, _: one.reason_text or str(one.reason), grow=True),
        Column(name="done", width=6, text=lambda one, _: shown.percent(one.fraction * 100), right=True),
        Column(name="cap", width=9, text=lambda one, _: shown.qu(one.cap_qu), right=True, spare=1),
        Column(name="held", width=9, text=lambda one, _: shown.qu(one.held_qu), right=True, spare=4),
        Column(name="paid + fee", width=10, text=lambda one, _: shown.qu(one.paid_qu + one.fee_qu), right=True),
        Column(name="returned", width=9, text=lambda one, _: shown.qu(one.returned_qu), right=True, spare=3),
        Column(name="created", width=19, text=lambda one, _: shown.moment(one.created_ms), spare=2),
    )
    BINDINGS: ClassVar[list[BindingType]] = [Binding("n", "app.go('run')", "New job")]

    async def load(self) -> Sequence[tuple[str, JobView]]:
        found = await self.qubix.client.jobs(limit=LIMIT)
        return [(one.job_id, one) for one in found.jobs]

    def chosen(self, key: str) -> None:
        self.app.push_screen(JobPage(key))
