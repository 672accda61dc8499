# SPDX-License-Identifier: Apache-2.0
"""The job composer: a kernel, what it is given, who may run it, what it will cost; only then the order."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from qubix.cli import shown
from qubix.errors import BadUsage, QubixError
from qubix.job import AsyncJob
from qubix_kernels.kernel import KernelSpec
from qubix_protocol.api import EstimateView, ListingView
from qubix_protocol.arrays import ArrayMeta
from qubix_tui import composing
from qubix_tui.composing import Line
from qubix_tui.fetched import fetched
from qubix_tui.screens.base import Page
from qubix_tui.screens.job import JobPage
from qubix_tui.told import told
from qubix_tui.widgets.ask import Question
from qubix_tui.widgets.pairs import section

if TYPE_CHECKING:
    from qubix_tui.app import QubixApp

Values = dict[str, str]
_TABLE: Final = 74
TERMS: Final = (
    Line(name="where", label="where: only devices that this query finds (empty: any)", hint="gpu_ram>=24 price<90000"),
    Line(name="rental", label="rental: run on a rental of yours, by its id (empty: none)"),
    Line(name="cap", label="cap: the most it may ever cost, in QU", hint="QU"),
    Line(name="deadline", label="deadline: in how many minutes", value="60"),
)


class RunPage(Page):
    place = "run"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f5", "estimate", "Forecast"),
        Binding("ctrl+s", "submit", "Submit"),
        Binding("escape", "kernels", "Kernels"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._specs: dict[str, KernelSpec] = {}
        self._spec: KernelSpec | None = None
        self._typed: Values = {}
        """What was typed for any kernel so far, so that another one's fields keep it."""
        self._links: dict[str, Path] = {}

    def body(self) -> ComposeResult:
        yield OptionList(id="kernels", compact=True)
        with VerticalScroll(id="composer"):
            yield Static("Asking the market for its kernels …", id="kernel", markup=False)
            yield Vertical(id="lines")
            yield Static("", id="problem", markup=False)
            yield Static("", id="forecast", markup=False)

    def on_mount(self) -> None:
        self.query_one("#kernels").focus()
        self._ask()

    def _ask(self) -> None:
        self.act(self._load(), self._came, doing="asking for the kernels")

    async def _load(self) -> dict[str, KernelSpec]:
        try:
            return composing.specs_of(await self.qubix.client.kernels())
        except QubixError as error:
            self.query_one("#kernel", Static).update(f"{told(error).line()}\nEsc asks again.")
            raise

    def _came(self, found: dict[str, KernelSpec]) -> None:
        self._specs = found
        options = self.query_one("#kernels", OptionList)
        options.clear_options()
        options.add_options([Option(name, id=name) for name in found])
        options.highlighted = 0 if found else None

    async def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        if event.option_id is not None and event.option_id in self._specs:
            await self._show(self._specs[event.option_id])

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        fields = self.query("#lines Input")
        if fields:
            fields.first().focus()

    async def _show(self, spec: KernelSpec) -> None:
        if self._spec is spec:
            return
        self._remember()
        self._spec = spec
        checked = "checked before anybody is paid" if spec.verifier else "paid when you accept, or after a window"
        title = Text(f"{spec.title}: {spec.doc}\n", "bold")
        title.append(f"Its result is {checked}. Back ends: {', '.join(spec.backends)}.", "not bold")
        self.query_one("#kernel", Static).update(title)
        box = self.query_one("#lines", Vertical)
        await box.remove_children()
        for line in (*composing.lines(spec), *TERMS):
            await box.mount(Static(Text(line.label), classes="label"))
            value = self._typed.get(line.name, line.value)
            await box.mount(
                Input(value, placeholder=line.hint, id=f"line-{line.name}", compact=True, select_on_focus=False)
            )
        self._say("", [])

    def _remember(self) -> None:
        self._typed |= {name: text for name, text in self._values().items() if text}

    def _values(self) -> Values:
        return {
            str(one.id).removeprefix("line-"): one.value.strip() for one in self.query("#lines Input").results(Input)
        }

    def prefill(self, **values: str) -> None:
        """Before the fields are there, too."""
        self._typed |= values
        for name, text in values.items():
            for one in self.query(f"#line-{name}").results(Input):
                one.value = text

    def _say(self, problem: str, forecast: list[str]) -> None:
        self.query_one("#problem", Static).update(problem)
        self.query_one("#forecast", Static).update(section("Forecast", forecast) if forecast else "")

    def _wrong(self, error: BadUsage) -> None:
        """Says it below the fields, and goes to the one that is meant."""
        self._say(f"✗ {told(error).line()}", [])
        for name in (error.field, f"input-{error.field}", f"param-{error.field}"):
            for one in self.query(f"#line-{name}").results(Input) if name.replace("-", "_").isidentifier() else ():
                one.focus()
                return
        self.call_after_refresh(self.query_one("#problem").scroll_visible, animate=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.focus_next()

    def action_kernels(self) -> None:
        self.query_one("#kernels").focus()
        if not self._specs:
            self._ask()

    # Forecast and order

    def action_estimate(self) -> None:
        self._start(self._estimated(), "forecasting")

    def action_submit(self) -> None:
        self._start(self._checked(), "forecasting")

    def _start(self, work: Any, doing: str) -> None:
        async def done() -> None:
            try:
                await work
            except BadUsage as error:
                self._wrong(error)

        self.act(done(), lambda _: None, doing=doing)

    async def _estimated(self) -> tuple[KernelSpec, dict[str, Any], dict[str, Any], EstimateView]:
        """Raises `BadUsage` for what the kernel does not take."""
        spec, values = self._spec, self._values()
        if spec is None:
            raise BadUsage("kernel", "no kernel is chosen", "Esc asks for them again.")
        inputs = await self._inputs(composing.inputs_of(spec, values))
        params = composing.params_of(spec, values)
        terms = composing.terms_of(values)
        found = await self.qubix.client.estimate(spec.name, inputs=inputs, params=params, **terms)
        self._say("", composing.forecast(found, _TABLE))
        self.call_after_refresh(self.query_one("#forecast").scroll_visible, top=True, animate=False)
        return spec, inputs, params, found

    async def _inputs(self, given: Mapping[str, composing.Given]) -> dict[str, Any]:
        """Links are fetched once: the forecast and the job are about the same file."""
        found: dict[str, Any] = {}
        for name, value in given.items():
            if isinstance(value, str) and composing.is_link(value):
                if value not in self._links:
                    folder = self.qubix.folder / "inputs"
                    self._links[value] = await fetched(value, folder, field=f"input-{name}")
                found[name] = self._links[value]
            else:
                found[name] = composing.path_of(value)
        return found

    async def _checked(self) -> None:
        values = self._values()
        on_rental = bool(values["rental"])
        cap = 0 if on_rental else composing.cap_of(values)
        deadline_s = composing.deadline_of(values)
        spec, inputs, params, found = await self._estimated()
        for name, value in inputs.items():
            if isinstance(value, ArrayMeta):
                problem = f"{name} is given by its form alone, which is enough for a forecast and not for a job"
                raise BadUsage(f"input-{name}", problem, "Give the path of its .npy file.")
        account = await self.qubix.client.account()
        if cap > account.balance_qu:
            problem = f"the cap of {cap:,} QU is above your balance of {account.balance_qu:,} QU"
            raise BadUsage("cap", problem, "Lower it, or deposit QU on the Wallet screen (6).")
        terms = {
            "cap_qu": cap,
            "where": values["where"] or None,
            "rental": values["rental"] or None,
            "deadline_s": deadline_s,
            "inputs": inputs,
            "params": params,
        }
        self._confirm(spec, terms, found, account.balance_qu)

    def _confirm(self, spec: KernelSpec, terms: dict[str, Any], found: EstimateView, balance_qu: int) -> None:
        least = found.cap_least_qu
        warning = []
        if not terms["rental"] and least is not None and least > terms["cap_qu"]:
            warning = [f"Careful: it begins nowhere with less than a cap of {shown.qu(least)} QU."]
        held = "It costs nothing further." if terms["rental"] else f"Held: {shown.qu(terms['cap_qu'])} QU, never more."
        words = [
            f"{spec.title} ({spec.name}) for any provider that fits"
            + (f" ({terms['where']})." if terms["where"] else "."),
            f"{held} Your balance: {shown.qu(balance_qu)} QU.",
            *warning,
            "",
            *composing.forecast(found, _TABLE - 4, most=5),
        ]

        def answered(agreed: bool | None) -> None:
            if agreed:
                self.act(self.qubix.client.submit(spec.name, **terms), self._made, doing="uploading and submitting")

        self.app.push_screen(Question("Submit this job?", "\n".join(words)), answered)

    def _made(self, job: AsyncJob) -> None:
        async def go() -> None:
            await self.qubix.action_go("jobs")
            await self.qubix.push_screen(JobPage(job.id))

        self.qubix.tasks.start(go(), "to the job")


async def run_here(app: "QubixApp", one: ListingView) -> None:
    """The composer, for this provider at no more than it asks now."""
    await app.action_go("run")
    page = app.screen
    if isinstance(page, RunPage):
        page.prefill(where=f"provider={one.provider} price<={one.rate_qu_per_h}")
