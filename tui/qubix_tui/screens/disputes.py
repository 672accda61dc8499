# SPDX-License-Identifier: Apache-2.0
"""Disputes that the account is a side of: what is at stake, each step, the evidence, and the next word."""

from collections.abc import Sequence
from typing import Any, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType

from qubix.cli import shown
from qubix.errors import BadUsage
from qubix_protocol.disputes import STATEMENT_MAX, DisputeState, DisputeView
from qubix_tui import marks
from qubix_tui.columns import Column
from qubix_tui.screens.lists import LIMIT, ListPage
from qubix_tui.screens.sheets import SheetWindow
from qubix_tui.widgets.ask import Field, Form, Question, Values
from qubix_tui.widgets.pairs import pairs, section


class DisputesPage(ListPage[DisputeView]):
    place = "disputes"
    none_yet = "No disputes.\nd in a job (3) disputes its result."
    columns: ClassVar[Sequence[Column[Any]]] = (
        Column(name="dispute", width=8, text=lambda one, _: one.dispute_id[:8]),
        Column(name="job", width=8, text=lambda one, _: one.job_id[:8]),
        Column(name="you", width=8, text=lambda one, _: one.you),
        Column(name="opened by", width=9, text=lambda one, _: one.opened_by.value),
        Column(name="state", width=11, text=lambda one, _: marks.DISPUTE[one.state]),
        Column(name="outcome", width=10, text=lambda one, _: one.outcome_text, grow=True, spare=2),
        Column(name="stake", width=9, text=lambda one, _: shown.qu(one.stake_qu), right=True),
        Column(name="award", width=9, text=lambda one, _: shown.qu(one.award_qu) if one.outcome else "", right=True),
        Column(name="due", width=19, text=lambda one, _: shown.moment(one.due_ms) if one.due_ms else "", spare=1),
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "answer", "Answer"),
        Binding("e", "add", "Say more"),
        Binding("x", "withdraw", "Take back"),
    ]

    async def load(self) -> Sequence[tuple[str, DisputeView]]:
        found = await self.qubix.client.disputes.list(limit=LIMIT)
        return [(one.dispute_id, one) for one in found.disputes]

    def chosen(self, key: str) -> None:
        one = self.item(key)
        if one is not None:
            self.app.push_screen(SheetWindow(*whole_story(one)))

    def _open(self) -> DisputeView | None:
        one = self.grid.row
        if one is not None and one.state is DisputeState.RESOLVED:
            self.qubix.tell(BadUsage("state", "this dispute is resolved", "Enter shows how and why."))
            return None
        return one

    def _came(self, view: DisputeView) -> None:
        self.qubix.say(f"The dispute is {view.state}. {view.outcome_text}".strip())
        self.action_again()

    def action_answer(self) -> None:
        one = self._open()
        if one is None:
            return
        fields = (
            Field(name="statement", label="Your answer"),
            Field(name="concede", label="Is the other side right? (y/n)", value="n"),
            Field(
                name="bond",
                label=f"Stake {shown.qu(one.bond_qu)} QU as they did; who is right gets both (y/n)",
                value="n",
            ),
        )

        def check(values: Values) -> None:
            _statement(values)
            if _yes(values, "concede") and _yes(values, "bond"):
                raise BadUsage("bond", "who concedes stakes nothing", "Answer n to one of the two.")

        def filled(values: Values | None) -> None:
            if values is not None:
                concede, bond = _yes(values, "concede"), _yes(values, "bond")
                work = self.qubix.client.disputes.answer(
                    one.dispute_id, values["statement"], concede=concede, bond=bond
                )
                self.act(work, self._came, doing="answering")

        self.app.push_screen(Form("Answer the dispute", fields, check=check), filled)

    def action_add(self) -> None:
        one = self._open()
        if one is None:
            return

        def filled(values: Values | None) -> None:
            if values is not None:
                self.act(
                    self.qubix.client.disputes.add(one.dispute_id, values["statement"]), self._came, doing="adding"
                )

        fields = (Field(name="statement", label="What there is to add"),)
        self.app.push_screen(Form("Say more", fields, check=_statement), filled)

    def action_withdraw(self) -> None:
        one = self._open()
        if one is None:
            return

        def answered(agreed: bool | None) -> None:
            if agreed:
                self.act(self.qubix.client.disputes.withdraw(one.dispute_id), self._came, doing="taking it back")

        text = "While nothing was spent or found, the bond comes back, too."
        self.app.push_screen(Question("Take this dispute back?", text), answered)


def _statement(values: Values) -> None:
    size = len(values["statement"])
    if not 1 <= size <= STATEMENT_MAX:
        raise BadUsage("statement", f"a statement has 1 to {STATEMENT_MAX:,} characters, not {size:,}", "Write it.")


def _yes(values: Values, name: str) -> bool:
    text = values[name].lower()
    if text not in ("y", "n", "yes", "no"):
        raise BadUsage(name, f"{name}: {values[name][:20]!r} is neither yes nor no", "Type y or n.")
    return text.startswith("y")


def whole_story(one: DisputeView) -> list[Text]:
    """What is at stake, the evidence as the market kept it, and every step."""
    kept = one.evidence
    sources = ", ".join(f"{amount:,} from {source}" for source, amount in one.awarded_from.items())
    stake = [
        ("dispute", one.dispute_id),
        ("job", f"{one.job_id}, attempt {one.attempt}"),
        ("provider", one.provider),
        ("you", one.you),
        ("state", f"{marks.DISPUTE[one.state]}, opened by the {one.opened_by}"),
        ("outcome", one.outcome_text),
        ("at stake", f"{shown.qu(one.stake_qu)} QU"),
        ("bonds", f"{shown.qu(one.bond_qu)} QU, answered by {shown.qu(one.answer_bond_qu)}"),
        ("award", f"{shown.qu(one.award_qu)} QU {sources}".strip() if one.outcome else ""),
        ("arbiters needed", f"{one.arbiters_needed}"),
        ("by itself at", shown.moment(one.due_ms) if one.due_ms else ""),
    ]
    good = sum(link.good is True for link in kept.links)
    evidence = [
        ("kernel", kept.kernel),
        ("parameters", kept.params_digest),
        ("inputs", kept.inputs_digest),
        ("signed by", _signed(one)),
        ("verdict", f"{kept.verdict} {kept.verdict_reason}: {kept.verdict_detail}".strip(": ")),
        ("second look", f"{one.finding} {kept.second_look}".strip()),
        ("run again by", kept.rerun_by or ""),
        (
            "time",
            f"claimed {shown.seconds(kept.claimed_ms)}, observed {shown.seconds(kept.observed_ms)},"
            f" forecast {shown.seconds(kept.forecast_ms)}, billed {shown.seconds(kept.billed_ms)}",
        ),
        ("links", f"{len(kept.links)}, {good} of them found good; {kept.late} late messages"),
        (
            "readings",
            f"{kept.readings:,}"
            + ("" if kept.utilisation_mean is None else f", mean use {kept.utilisation_mean:.0f} %"),
        ),
    ]
    steps = [line for step in one.steps for line in _step(step.at_ms, step.by, step.what, step.text, step.digests)]
    return [pairs(stake, title="Dispute"), pairs(evidence, title="Evidence"), section("Steps", steps or ["none"])]


def _signed(one: DisputeView) -> str:
    kept = one.evidence
    papers = (("consumer's order", kept.order), ("provider's report", kept.report), ("settlement", kept.settlement))
    return ", ".join(f"{name} {'✓' if text else '✗ none'}" for name, text in papers)


def _step(at_ms: int, by: str, what: str, text: str, digests: Sequence[str]) -> list[str]:
    said = [f"   {line}" for line in text.splitlines()]
    return [f"{shown.moment(at_ms)}  {by}: {what}", *said, *(f"   proof {digest}" for digest in digests)]
