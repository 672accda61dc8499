# SPDX-License-Identifier: Apache-2.0
"""`qubix job dispute` for the sides, `qubix arbiter` for those who judge."""

import re

import click

from qubix.cli import shown
from qubix.cli.output import console, json_option, market, print_json, print_pairs, print_table
from qubix.cli.which import job_argument, job_named
from qubix.errors import BadUsage
from qubix_protocol.disputes import DIGESTS_MAX, DisputesView, DisputeView
from qubix_protocol.units import QU_MAX

_LIST_COLUMNS = ("dispute", "job", "opened by", "state", "stake", "award", "due")
_STEP_COLUMNS = ("when", "by", "what", "said")


def _digests(ctx: click.Context, option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """In small letters, as the market writes them."""
    found = tuple(one.lower() for one in given)
    for one in found:
        if not re.fullmatch("[0-9a-f]{64}", one):
            raise click.BadParameter(f"{one[:80]!r} is no SHA-256 in hex: 64 digits, as sha256sum FILE prints them")
    if len(found) > DIGESTS_MAX:
        raise click.BadParameter(f"{len(found)} were given; at most {DIGESTS_MAX} go with one statement")
    return found


digest_option = click.option(
    "--digest",
    "digests",
    multiple=True,
    metavar="SHA256",
    callback=_digests,
    help="Of what proves it, in hex; may be repeated.",
)
dispute_argument = click.argument("dispute_id", type=click.UUID, metavar="DISPUTE")
limit_option = click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="Most to show.")
after_option = click.option("--after", metavar="CURSOR", help="Go on after this cursor of an earlier page.")


@click.group()
def dispute() -> None:
    """Dispute a result, or answer a dispute about yours."""


@dispute.command("open")
@job_argument
@click.argument("statement")
@click.option(
    "--attempt", type=click.IntRange(min=1), metavar="N", help="Which of the job's attempts, where several were."
)
@digest_option
@json_option
def open_dispute(which: str, statement: str, attempt: int | None, digests: tuple[str, ...], as_json: bool) -> None:
    """Dispute what was delivered or paid for JOB. A bond is staked; who is right gets it back."""
    with market() as client:
        show_one(client.disputes.open(job_named(client, which), statement, attempt=attempt, digests=digests), as_json)


@dispute.command("list")
@limit_option
@after_option
@json_option
def list_disputes(limit: int, after: str | None, as_json: bool) -> None:
    """Your disputes, newest first."""
    with market() as client:
        show_all(client.disputes.list(after=after, limit=limit), as_json)


@dispute.command()
@dispute_argument
@json_option
def show(dispute_id: object, as_json: bool) -> None:
    """One dispute: what is at stake, each step, and the evidence."""
    with market() as client:
        show_one(client.disputes.get(str(dispute_id)), as_json)


@dispute.command()
@dispute_argument
@click.argument("statement")
@click.option("--concede", is_flag=True, help="The opener is right.")
@click.option("--bond", is_flag=True, help="Stake as much as the opener has: who is right gets both.")
@digest_option
@json_option
def answer(
    dispute_id: object, statement: str, concede: bool, bond: bool, digests: tuple[str, ...], as_json: bool
) -> None:
    """Answer a dispute about your work, before its deadline."""
    if concede and bond:
        raise BadUsage("--bond", "who concedes stakes nothing", "Give either --concede or --bond")
    with market() as client:
        found = client.disputes.answer(str(dispute_id), statement, concede=concede, bond=bond, digests=digests)
        show_one(found, as_json)


@dispute.command()
@dispute_argument
@click.argument("statement")
@digest_option
@json_option
def add(dispute_id: object, statement: str, digests: tuple[str, ...], as_json: bool) -> None:
    """Say more, before it is resolved."""
    with market() as client:
        show_one(client.disputes.add(str(dispute_id), statement, digests=digests), as_json)


@dispute.command()
@dispute_argument
@json_option
def withdraw(dispute_id: object, as_json: bool) -> None:
    """Take your dispute back; while nothing was spent or found the bond comes back, too."""
    with market() as client:
        show_one(client.disputes.withdraw(str(dispute_id)), as_json)


@click.group()
def arbiter() -> None:
    """Judge disputes (with an arbiter's token in QUBIX_TOKEN)."""


@arbiter.command("list")
@limit_option
@after_option
@json_option
def list_all(limit: int, after: str | None, as_json: bool) -> None:
    """All disputes, newest first."""
    with market() as client:
        show_all(client.disputes.all(after=after, limit=limit), as_json)


@arbiter.command("show")
@dispute_argument
@json_option
def show_any(dispute_id: object, as_json: bool) -> None:
    """One dispute with all its evidence."""
    with market() as client:
        show_one(client.disputes.judge(str(dispute_id)), as_json)


@arbiter.command()
@dispute_argument
@click.option(
    "--award", "award_qu", type=click.IntRange(0, QU_MAX), required=True, metavar="QU", help="To who opened it."
)
@click.argument("reason")
@json_option
def decide(dispute_id: object, award_qu: int, reason: str, as_json: bool) -> None:
    """Decide what of the stake goes to who opened it; about much it takes two arbiters who say the same."""
    with market() as client:
        show_one(client.disputes.decide(str(dispute_id), award_qu, reason), as_json)


def show_all(found: DisputesView, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    if not found.disputes:
        console().print("No disputes.")
        return
    lines = [
        [
            one.dispute_id,
            one.job_id,
            one.opened_by.value,
            one.outcome.value if one.outcome else one.state.value,
            shown.qu(one.stake_qu),
            shown.qu(one.award_qu) if one.outcome else "",
            shown.moment(one.due_ms) if one.due_ms else "",
        ]
        for one in found.disputes
    ]
    print_table(_LIST_COLUMNS, lines, right=frozenset({"stake", "award"}))
    if found.next:
        console().print(f"More: --after {found.next}")


def show_one(found: DisputeView, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    kept = found.evidence
    sources = "  ".join(f"{amount:,} from {source}" for source, amount in found.awarded_from.items())
    print_pairs(
        [
            ("dispute", found.dispute_id),
            ("job", f"{found.job_id}, attempt {found.attempt}, by {shown.peer(found.provider)}"),
            ("you", found.you),
            ("opened by", found.opened_by.value),
            ("state", found.state.value),
            ("outcome", found.outcome_text),
            ("at stake", f"{shown.qu(found.stake_qu)} QU"),
            ("bonds", f"{found.bond_qu:,} QU, answered by {found.answer_bond_qu:,}; re-run {found.rerun_cost_qu:,}"),
            ("award", f"{found.award_qu:,} QU  {sources}".strip() if found.outcome else ""),
            ("arbiters needed", str(found.arbiters_needed)),
            ("by itself at", shown.moment(found.due_ms) if found.due_ms else ""),
            ("verdict", f"{kept.verdict} {kept.verdict_reason}: {kept.verdict_detail}".strip(": ")),
            ("second look", f"{found.finding.value} {kept.second_look}".strip()),
            ("run again by", kept.rerun_by or ""),
            ("time", f"claimed {shown.seconds(kept.claimed_ms)}, observed {shown.seconds(kept.observed_ms)}"),
            ("links", f"{len(kept.links)} ({kept.late} late messages, {kept.readings} readings)"),
        ]
    )
    lines = [[shown.moment(one.at_ms), one.by, one.what, "\n".join((one.text, *one.digests))] for one in found.steps]
    print_table(_STEP_COLUMNS, lines)
