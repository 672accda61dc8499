# SPDX-License-Identifier: Apache-2.0
"""`qubix job accept`, `settle`, `dispute` and `qubix arbiter`: what they send, print, and exit with."""

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from qubix.cli import main
from qubix_protocol.api import JobView, SettleView
from qubix_protocol.disputes import DisputeState, DisputesView, DisputeView, Outcome
from qubix_protocol.states import JobState
from tests.support.fake_api import DROP_AFTER, TOKEN
from tests.support.fake_disputes import BOND_QU, DIGEST, STAKE_QU, FakeDisputes

NOBODYS = "7d444840-9dc0-11d1-b245-5ffdce74fad2"
Qubix = Callable[..., Result]


@pytest.fixture
def api() -> Iterator[FakeDisputes]:
    with FakeDisputes() as found:
        yield found


@pytest.fixture
def qubix(api: FakeDisputes, tmp_path: Path) -> Qubix:
    env = {
        "QUBIX_COORDINATOR_URL": api.url,
        "QUBIX_TOKEN": TOKEN,
        "QUBIX_DATA_DIR": str(tmp_path / "data"),
        "QUBIX_TRIES_MAX": "2",
    }

    def run(*words: str, **more: str) -> Result:
        return CliRunner().invoke(main, list(words), env=env | more)

    return run


def delivered(api: FakeDisputes) -> str:
    job_id = api.add_job().job_id
    api.change(job_id, state=JobState.DELIVERED)
    return job_id


def view_of(found: Result) -> DisputeView:
    assert found.exit_code == 0, found.output
    return msgspec.json.decode(found.stdout, type=DisputeView)


def test_accepting_shows_the_job_as_it_is_then(qubix: Qubix, api: FakeDisputes) -> None:
    job_id = delivered(api)
    found = qubix("job", "accept", job_id)
    assert found.exit_code == 0, found.output
    assert job_id in found.output
    assert "settled" in found.output
    as_json = qubix("job", "accept", job_id, "--json")
    assert msgspec.json.decode(as_json.stdout, type=JobView).state is JobState.SETTLED
    waiting = api.add_job().job_id
    early = qubix("job", "accept", waiting)
    assert early.exit_code == 2
    assert "nothing to accept" in early.output
    assert "remedy: Wait until the result is delivered" in early.output


def test_settling_says_what_is_due(qubix: Qubix, api: FakeDisputes) -> None:
    job_id = delivered(api)
    found = qubix("job", "settle", job_id)
    assert found.exit_code == 0, found.output
    assert found.output == f"job {job_id} is delivered: the next thing is due in 60 s.\n"
    told = msgspec.json.decode(qubix("job", "settle", job_id, "--json").stdout, type=SettleView)
    assert (told.job_id, told.state) == (job_id, JobState.DELIVERED)


def test_a_dispute_from_opening_to_withdrawal(qubix: Qubix, api: FakeDisputes) -> None:
    job_id = delivered(api)
    words = ("job", "dispute", "open", job_id, "[bold]made up[/bold]", "--attempt", "1", "--digest", DIGEST.upper())
    opened = qubix(*words)
    assert opened.exit_code == 0, opened.output
    sent = msgspec.json.decode(api.calls("POST", "/disputes")[-1].body)
    assert sent == {"job_id": job_id, "statement": "[bold]made up[/bold]", "attempt": 1, "digests": [DIGEST]}
    dispute_id = next(iter(api.disputes))
    for expected in (dispute_id, f"{STAKE_QU:,} QU", f"{BOND_QU:,} QU", "opened", "[bold]made up[/bold]", DIGEST):
        assert expected in opened.output
    twice = qubix(*words)
    assert twice.exit_code == 2
    assert "disputed already" in twice.output
    seen = qubix("job", "dispute", "show", dispute_id)
    assert seen.exit_code == 0
    assert "claimed 9.00 s, observed 10.00 s" in seen.output
    added = view_of(qubix("job", "dispute", "add", dispute_id, "look at row 3", "--json"))
    assert [step.text for step in added.steps] == ["[bold]made up[/bold]", "look at row 3"]
    gone = view_of(qubix("job", "dispute", "withdraw", dispute_id, "--json"))
    assert gone.outcome is Outcome.WITHDRAWN
    after = qubix("job", "dispute", "show", dispute_id)
    assert "withdrawn by who opened it" in after.output
    assert "by itself at" not in after.output


def test_answers(qubix: Qubix, api: FakeDisputes) -> None:
    dispute_id = api.add_dispute(NOBODYS).dispute_id
    answered = view_of(qubix("job", "dispute", "answer", dispute_id, "it is right", "--bond", "--json"))
    assert (answered.state, answered.answer_bond_qu) == (DisputeState.RERUNNING, BOND_QU)
    sent = msgspec.json.decode(api.calls("POST", "/answer")[-1].body)
    assert (sent["statement"], sent["bond"], sent.get("concede", False)) == ("it is right", True, False)
    other = api.add_dispute(NOBODYS).dispute_id
    conceded = qubix("job", "dispute", "answer", other, "they are right", "--concede")
    assert conceded.exit_code == 0, conceded.output
    assert "the other side agreed" in conceded.output
    assert f"{STAKE_QU:,} QU  {STAKE_QU:,} from hold" in conceded.output
    asked = len(api.calls("POST", "/answer"))
    both = qubix("job", "dispute", "answer", other, "x", "--concede", "--bond")
    assert both.exit_code == 2
    assert "--bond" in both.output
    assert len(api.calls("POST", "/answer")) == asked


@pytest.mark.parametrize("command", [("job", "dispute"), ("arbiter",)])
def test_lists_are_in_pages(qubix: Qubix, api: FakeDisputes, command: tuple[str, ...]) -> None:
    assert qubix(*command, "list").output == "No disputes.\n"
    ids = [api.add_dispute(NOBODYS).dispute_id for _ in range(3)]
    first = qubix(*command, "list", "--limit", "2")
    assert first.exit_code == 0, first.output
    assert first.output.index(ids[2]) < first.output.index(ids[1])
    assert ids[0] not in first.output
    assert "--after 2" in first.output
    rest = qubix(*command, "list", "--limit", "2", "--after", "2")
    assert ids[0] in rest.output
    assert "--after" not in rest.output
    found = msgspec.json.decode(qubix(*command, "list", "--json").stdout, type=DisputesView)
    assert [one.dispute_id for one in found.disputes] == ids[::-1]
    assert {call.path for call in api.calls("GET", "/disputes")} == {
        "/api/v1/arbiter/disputes" if command == ("arbiter",) else "/api/v1/disputes"
    }


def test_an_arbiter_looks_and_decides(qubix: Qubix, api: FakeDisputes) -> None:
    dispute_id = api.add_dispute(NOBODYS).dispute_id
    seen = qubix("arbiter", "show", dispute_id)
    assert seen.exit_code == 0, seen.output
    assert "arbiters needed" in seen.output
    much = qubix("arbiter", "decide", dispute_id, "--award", str(STAKE_QU + 1), "it is wrong")
    assert much.exit_code == 2
    assert f"only {STAKE_QU} QU are at stake" in much.output
    done = qubix("arbiter", "decide", dispute_id, "--award", "4000", "row 3 is wrong")
    assert done.exit_code == 0, done.output
    assert "4,000 QU  4,000 from hold" in done.output
    assert "row 3 is wrong" in done.output
    sent = [msgspec.json.decode(call.body) for call in api.calls("POST", "/decide")]
    assert sent[-1] == {"award_qu": 4_000, "reason": "row 3 is wrong"}
    assert {call.path.partition(dispute_id)[0] for call in api.seen if dispute_id in call.path} == {
        "/api/v1/arbiter/disputes/"
    }


def test_what_counts_once_is_asked_again_and_what_does_not_is_not(qubix: Qubix, api: FakeDisputes) -> None:
    dispute_id = api.add_dispute(NOBODYS).dispute_id
    api.trouble("POST", "/decide", DROP_AFTER)
    assert view_of(qubix("arbiter", "decide", dispute_id, "--award", "0", "right", "--json")).award_qu == 0
    assert len(api.calls("POST", "/decide")) == 2
    api.trouble("POST", "/evidence", DROP_AFTER)
    lost = qubix("job", "dispute", "add", dispute_id, "row 3")
    assert lost.exit_code == 1
    assert "Traceback" not in lost.output
    assert len(api.calls("POST", "/evidence")) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["job", "dispute", "show", NOBODYS],
        ["job", "dispute", "answer", NOBODYS, "x"],
        ["job", "dispute", "add", NOBODYS, "x"],
        ["job", "dispute", "withdraw", NOBODYS],
        ["arbiter", "show", NOBODYS],
        ["arbiter", "decide", NOBODYS, "--award", "0", "x"],
    ],
)
def test_somebody_elses_dispute_is_told_in_commands(qubix: Qubix, words: list[str]) -> None:
    found = qubix(*words)
    assert found.exit_code == 2, found.output
    assert "there is no such dispute of yours" in found.output
    assert "`qubix job dispute list`" in found.output
    assert "GET" not in found.output


def test_somebody_elses_job_is_told_in_commands(qubix: Qubix) -> None:
    for command in ("accept", "settle"):
        found = qubix("job", command, NOBODYS)
        assert found.exit_code == 2, found.output
        assert "there is no such job of yours" in found.output


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["job", "accept"], "JOB"),
        (["job", "accept", "nonsense"], "UUID"),
        (["job", "settle", "nonsense"], "UUID"),
        (["job", "dispute", "nonsense"], "nonsense"),
        (["job", "dispute", "open", "nonsense", "x"], "UUID"),
        (["job", "dispute", "open", NOBODYS], "STATEMENT"),
        (["job", "dispute", "open", NOBODYS, "x", "--attempt", "0"], "--attempt"),
        (["job", "dispute", "open", NOBODYS, "x", "--digest", "abc"], "--digest"),
        (["job", "dispute", "open", NOBODYS, "x", "--digest", "zz" * 32], "--digest"),
        (["job", "dispute", "add", NOBODYS, "x", "--digest", "AB" * 31], "--digest"),
        (["job", "dispute", "answer", NOBODYS, "x", "--digest", "abc"], "--digest"),
        (["job", "dispute", "add", NOBODYS, "x", *["--digest", DIGEST] * 33], "at most 32"),
        (["job", "dispute", "show", "nonsense"], "UUID"),
        (["job", "dispute", "list", "--limit", "0"], "--limit"),
        (["job", "dispute", "list", "--limit", "101"], "--limit"),
        (["arbiter", "decide", NOBODYS, "x"], "--award"),
        (["arbiter", "decide", NOBODYS, "--award", "-1", "x"], "--award"),
        (["arbiter", "decide", NOBODYS, "--award", "1.5", "x"], "--award"),
        (["arbiter", "decide", NOBODYS, "--award", "9" * 30, "x"], "--award"),
        (["arbiter", "decide", NOBODYS, "--award", "1"], "REASON"),
    ],
)
def test_bad_usage_exits_2_and_asks_nobody(qubix: Qubix, api: FakeDisputes, words: list[str], named: str) -> None:
    found = qubix(*words)
    assert found.exit_code == 2, found.output
    assert named in found.output
    assert "Traceback" not in found.output
    assert not [call for call in api.seen if call.path != "/api/v1/network"]


def test_an_absent_coordinator_exits_1(qubix: Qubix) -> None:
    nowhere = {"QUBIX_COORDINATOR_URL": "http://127.0.0.1:9", "QUBIX_TRIES_MAX": "1"}
    for words in (("job", "dispute", "list"), ("arbiter", "list"), ("job", "accept", NOBODYS)):
        found = qubix(*words, **nowhere)
        assert found.exit_code == 1, found.output
        assert "remedy" in found.output


def test_what_is_the_other_sides_to_do_exits_2(qubix: Qubix, api: FakeDisputes) -> None:
    dispute_id = api.add_dispute(NOBODYS).dispute_id
    api.change_dispute(dispute_id, you="provider")
    found = qubix("job", "dispute", "withdraw", dispute_id)
    assert found.exit_code == 2, found.output
    assert "only who opened it can withdraw it" in found.output
    assert "remedy: Answer it" in found.output


def test_a_wrong_token_exits_2(qubix: Qubix) -> None:
    for words in (("job", "dispute", "list"), ("arbiter", "list")):
        assert qubix(*words, QUBIX_TOKEN="wrong").exit_code == 2
