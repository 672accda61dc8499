# SPDX-License-Identifier: Apache-2.0
"""Money: what there is, what came and went, where to send QU, and the way out. Signing in with the wallet kept here."""

from collections.abc import Sequence
from typing import Any, ClassVar, Final, NamedTuple

from rich.text import Text
from textual.binding import Binding, BindingType

from qubix import keystore
from qubix.cli import shown
from qubix.errors import BadUsage
from qubix.wallet import Wallet
from qubix_chain import identity
from qubix_protocol.api import StatementLine
from qubix_protocol.deposits import ChainView, DepositIdentityView, DepositView
from qubix_protocol.units import QU_MAX
from qubix_protocol.wallets import EndedView, SignedInView, WalletsView
from qubix_protocol.withdrawals import AddressView, WithdrawableView, WithdrawalState, WithdrawalView
from qubix_tui import drawn, marks
from qubix_tui.columns import Column
from qubix_tui.screens.lists import LIMIT, ListPage
from qubix_tui.screens.sheets import SheetWindow
from qubix_tui.widgets.ask import Field, Form, Question, Values, whole
from qubix_tui.widgets.pairs import pairs

STATEMENT, DEPOSITS, WITHDRAWALS = "movements", "deposits", "withdrawals"
KINDS: Final = (STATEMENT, DEPOSITS, WITHDRAWALS)
NONE_YET: Final = {
    STATEMENT: "No movements yet.",
    DEPOSITS: "No deposits yet.\nd shows where to send QU.",
    WITHDRAWALS: "No withdrawals yet.\nw sends QU out.",
}


class Movement(NamedTuple):
    """One line of any of the lists, and everything about it."""

    key: str
    at_ms: int
    what: str
    amount: str
    text: str
    pairs: tuple[tuple[str, str], ...]
    withdrawal: WithdrawalView | None = None


class Held(NamedTuple):
    """What stands above the list. Each is None where the market does not tell."""

    wallets: WalletsView | None
    limits: WithdrawableView | None
    chain: ChainView | None
    local: str | None
    """The identity of the wallet on this machine."""


class WalletPage(ListPage[Movement]):
    place = "wallet"
    columns: ClassVar[Sequence[Column[Any]]] = (
        Column(name="when", width=19, text=lambda one, _: shown.moment(one.at_ms)),
        Column(name="what", width=14, text=lambda one, _: one.what),
        Column(name="QU", width=14, text=lambda one, _: one.amount, right=True),
        Column(name="which means", width=20, text=lambda one, _: one.text, grow=True),
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("t", "kind", "Which list"),
        Binding("d", "deposit", "Deposit"),
        Binding("w", "withdraw", "Withdraw"),
        Binding("c", "cancel", "Cancel one", show=False),
        Binding("a", "addresses", "Addresses"),
        Binding("l", "login", "Log in"),
        Binding("o", "logout", "Log out", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._kind = STATEMENT
        self._held = Held(None, None, None, None)

    async def load(self) -> Sequence[tuple[str, Movement]]:
        client, kind = self.qubix.client, self._kind
        local = await client.session.port.aside(lambda: Wallet.open(client.settings.data_dir).identity)
        self._held = self._held._replace(local=local)
        self._held = Held(await client.wallets(), await client.withdrawable(), await client.chain(), local)
        if kind == DEPOSITS:
            found = [deposit_line(one) for one in (await client.deposits(limit=LIMIT)).deposits]
        elif kind == WITHDRAWALS:
            found = [withdrawal_line(one) for one in (await client.withdrawals(limit=LIMIT)).withdrawals]
        else:
            found = [statement_line(one) for one in (await client.statement(limit=LIMIT)).lines]
        return [(one.key, one) for one in found] if kind == self._kind else list(self.items.items())

    def head(self) -> Text:
        return pairs(standing(self._held, self._kind, self.qubix.client.settings.url))

    def _empty(self) -> str:
        if self._items is not None and self._error is None:
            return NONE_YET[self._kind]
        return super()._empty()

    def chosen(self, key: str) -> None:
        one = self.item(key)
        if one is not None:
            self.app.push_screen(SheetWindow(pairs(one.pairs, title=one.what)))

    def action_kind(self) -> None:
        self._kind = KINDS[(KINDS.index(self._kind) + 1) % len(KINDS)]
        self._items = None
        self.grid.show([])
        self.action_again()

    # In

    def action_deposit(self) -> None:
        def came(found: DepositIdentityView) -> None:
            self.app.push_screen(SheetWindow(*deposit_parts(found)))

        self.act(self.qubix.client.deposit_identity(), came, doing="asking where to send QU")

    # Out

    def action_withdraw(self) -> None:
        async def known() -> tuple[WithdrawableView, tuple[AddressView, ...]]:
            return await self.qubix.client.withdrawable(), await self.qubix.client.addresses()

        self.act(known(), lambda found: self._withdraw(*found), doing="asking how much can be withdrawn")

    def _withdraw(self, limits: WithdrawableView, addresses: tuple[AddressView, ...]) -> None:
        if not addresses:
            problem = "withdrawals go to listed addresses, and none is listed"
            self.qubix.tell(BadUsage("address", problem, "List one: a, then its identity."))
            return

        def read(values: Values) -> tuple[str, int]:
            known = [one.identity for one in addresses]
            found = [one for one in known if one.startswith(values["to"].upper())] if values["to"] else []
            if len(found) != 1:
                problem = f"{values['to'][:60]!r} is none of the listed addresses"
                raise BadUsage("to", problem, "Type the beginning of one, or list it first (a).")
            return found[0], whole(values, "amount", low=1, high=QU_MAX, what="amount")

        def check(values: Values) -> None:
            read(values)

        def filled(values: Values | None) -> None:
            if values is not None:
                self._send(*read(values))

        text = f"{shown.qu(limits.withdrawable_qu)} of {shown.qu(limits.balance_qu)} QU can be withdrawn. {limits.text}"
        listed = "\n".join(f"{one.identity[:20]}… {one.label}" for one in addresses[:5])
        fields = (
            Field(name="to", label="To (the beginning is enough)", value=addresses[0].identity),
            Field(name="amount", label=f"Amount in QU ({limits.amount_min_qu:,} to {limits.amount_max_qu:,} at once)"),
        )
        self.app.push_screen(Form("Withdraw QU", fields, text=f"{text}\n{listed}", check=check), filled)

    def _send(self, destination: str, amount_qu: int) -> None:
        def made(view: WithdrawalView) -> None:
            self.qubix.say(f"{shown.qu(view.amount_qu)} QU: {view.text}")
            self._kind = WITHDRAWALS
            self.action_again()

        def answered(agreed: bool | None) -> None:
            if agreed:
                self.act(self.qubix.client.withdraw(destination, amount_qu), made, doing="withdrawing")

        self.app.push_screen(Question("Withdraw?", f"{amount_qu:,} QU to\n{destination}"), answered)

    def action_cancel(self) -> None:
        row = self.grid.row
        view = None if row is None else row.withdrawal
        if view is None:
            self.qubix.tell(BadUsage("withdrawal", "no withdrawal is under the cursor", "t shows the withdrawals."))
            return
        if view.state is not WithdrawalState.WAITING:
            problem = f"a withdrawal that is {view.state} cannot be cancelled"
            self.qubix.tell(BadUsage("state", problem, "Only a waiting one can; it goes on by itself."))
            return

        def done(found: WithdrawalView) -> None:
            self.qubix.say(f"{found.text}")
            self.action_again()

        def answered(agreed: bool | None) -> None:
            if agreed:
                self.act(self.qubix.client.cancel_withdrawal(view.withdrawal_id), done, doing="cancelling")

        self.app.push_screen(Question("Cancel it?", f"{shown.qu(view.amount_qu)} QU return to your balance."), answered)

    def action_addresses(self) -> None:
        self.act(self.qubix.client.addresses(), self._addresses, doing="asking for the addresses")

    def _addresses(self, found: tuple[AddressView, ...]) -> None:
        def check(values: Values) -> None:
            try:
                identity.decode(values["identity"])
            except ValueError as error:
                raise BadUsage("identity", str(error), "Copy all 60 capital letters.") from None

        def added(view: AddressView) -> None:
            self.qubix.say(f"Listed; it can be used from {shown.moment(view.usable_ms)} on.")

        def filled(values: Values | None) -> None:
            if values is not None:
                work = self.qubix.client.add_address(values["identity"], values["label"])
                self.act(work, added, doing="listing the address")

        lines = [f"{one.identity} {one.label} from {shown.moment(one.usable_ms)}" for one in found] or ["none yet"]
        fields = (
            Field(name="identity", label="List another: its identity", value=self._held.local or ""),
            Field(name="label", label="Your own name for it"),
        )
        self.app.push_screen(Form("Where withdrawals may go", fields, text="\n".join(lines), check=check), filled)

    # Who

    def action_login(self) -> None:
        """The wallet is read first: a passphrase is asked for only where there is one."""
        client = self.qubix.client
        aside = client.session.port.aside

        async def kept() -> bool:
            return (await aside(lambda: keystore.read_existing(client.settings.data_dir))).needs_passphrase

        def asked(needs: bool) -> None:
            if not needs:
                self._login(None)
                return
            fields = (Field(name="passphrase", label="Passphrase", secret=True),)
            text = "It opens the wallet on this machine and is sent nowhere. What is signed is read first; no QU move."
            self.app.push_screen(Form("Log in", fields, text=text), filled)

        def filled(values: Values | None) -> None:
            if values is not None:
                self._login(values["passphrase"])

        self.act(kept(), asked, doing="looking for the wallet")

    def _login(self, passphrase: str | None) -> None:
        client = self.qubix.client
        aside = client.session.port.aside

        async def signed() -> SignedInView:
            wallet = client.wallet
            await aside(lambda: wallet.unlock(passphrase))
            try:
                return await client.sign_in(wallet, name="qubix tui")
            finally:
                wallet.lock()

        self.act(signed(), self._opened, doing="signing in")

    def _opened(self, view: SignedInView) -> None:
        self.qubix.say(f"Signed in as {view.session.identity}" + (" (a new account)." if view.created else "."))
        self._anew()

    def action_logout(self) -> None:
        def ended(view: EndedView) -> None:
            self.qubix.say("Signed out." if view.ended else "Nobody was signed in here.")
            self._anew()

        self.act(self.qubix.client.sign_out(), ended, doing="signing out")

    def _anew(self) -> None:
        self._items, self._held = None, self._held._replace(wallets=None, limits=None)
        self.qubix.tasks.start(self.qubix.restart_feed(), "another account")
        self.action_again()


def standing(held: Held, kind: str, url: str) -> list[tuple[str, str]]:
    """Both balances, and what keeps QU from going out."""
    found: list[tuple[str, str]] = [("market", url)]
    if held.wallets is not None:
        found.append(
            (
                "in the market",
                f"{shown.qu(held.wallets.balance_qu)} QU available, {shown.qu(held.wallets.held_qu)} held",
            )
        )
        for one in held.wallets.wallets:
            qu = (
                one.chain_problem or "unknown"
                if one.chain_balance_qu is None
                else f"{shown.qu(one.chain_balance_qu)} QU"
            )
            found.append(("on the network", f"{qu} at {one.identity[:12]}…{one.identity[-6:]}"))
    if held.limits is not None:
        limits = held.limits
        found.append(("can go out", f"{shown.qu(limits.withdrawable_qu)} QU. {limits.text}".strip()))
    if held.chain is not None and held.chain.text:
        found.append(("network", held.chain.text))
    found.append(("wallet here", held.local or "none yet: `qubix wallet create`"))
    found.append(("list", f"{kind} (t: {', '.join(KINDS)})"))
    return found


def deposit_parts(found: DepositIdentityView) -> list[Text]:
    """The code is drawn light on dark whatever the terminal's colours are."""
    play = " (play money)" if found.network == "devnet" else ""
    facts = [
        ("send", f"{found.amount_min_qu:,} QU or more; less is lost"),
        ("network", f"{found.network}{play}"),
        ("now", found.chain.text),
    ]
    code = Text("\n".join(drawn.qr(found.identity)), "bright_white on black", no_wrap=True)
    return [Text(found.identity, "bold", no_wrap=True), pairs(facts), code]


def statement_line(one: StatementLine) -> Movement:
    what = one.kind.removeprefix("development_").replace("_", " ")
    facts = (("when", shown.moment(one.at_ms)), ("QU", f"{one.amount_qu:+,}"), ("for", one.cause))
    return Movement(f"{one.id}", one.at_ms, what, f"{one.amount_qu:+,}", shown.cause(one.cause), facts)


def deposit_line(one: DepositView) -> Movement:
    icon = {"credited": "✓", "swept": "✓"}.get(one.state, "◌")
    facts = (
        ("state", one.state),
        ("which means", one.text),
        ("QU", shown.qu(one.amount_qu)),
        ("from", one.source),
        ("transaction", one.tx_id),
        ("tick", f"{one.tick}"),
        ("seen", shown.moment(one.seen_ms)),
        ("swept by", one.sweep_tx_id or ""),
    )
    return Movement(one.deposit_id, one.seen_ms, f"{icon} {one.state}", shown.qu(one.amount_qu), one.text, facts)


def withdrawal_line(one: WithdrawalView) -> Movement:
    facts = (
        ("state", one.state.value),
        ("which means", one.text),
        ("detail", one.detail),
        ("QU", shown.qu(one.amount_qu)),
        ("to", one.destination),
        ("transaction", one.tx_id or "none yet"),
        ("made", shown.moment(one.created_ms)),
        ("withdrawal", one.withdrawal_id),
    )
    amount = shown.qu(one.amount_qu)
    return Movement(one.withdrawal_id, one.created_ms, marks.WITHDRAWAL[one.state], amount, one.text, facts, one)
