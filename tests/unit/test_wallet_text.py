# SPDX-License-Identifier: Apache-2.0
"""The text that wallets sign: one spelling, printable, and never the body of a transaction."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix_protocol.units import NETWORKS
from qubix_protocol.wallet_text import DOMAIN_MAX, TEXT_BYTES_MAX, ChallengeText, Purpose, is_domain, parse

IDENTITY = "BZBQFLLBNCXEMGLOBHUVFTLUPLVCPQUASSILFABOFFBCADQSSUPNWLZBQEXK"
NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
HEADER_BYTES = 80
PAYLOAD_BYTES_MAX = 1024


@st.composite
def challenge_texts(draw: st.DrawFn) -> ChallengeText:
    purpose = draw(st.sampled_from(Purpose))
    issued = NOW + timedelta(seconds=draw(st.integers(-800_000_000, 800_000_000)))
    return ChallengeText(
        domain=draw(st.from_regex(rf"[a-z0-9][a-z0-9.:_-]{{0,{DOMAIN_MAX - 1}}}", fullmatch=True)),
        network=draw(st.sampled_from(NETWORKS)),
        identity=draw(st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=60, max_size=60)),
        purpose=purpose,
        nonce=draw(st.binary(min_size=16, max_size=16)).hex(),
        issued=issued,
        expires=issued + timedelta(minutes=10),
        account=str(draw(st.uuids())) if purpose is not Purpose.SIGN_IN else "",
        order_key=draw(st.binary(min_size=32, max_size=32)).hex() if purpose.about_a_key else "",
    )


@given(challenge_texts())
def test_it_reads_back_as_it_was_written(said: ChallengeText) -> None:
    assert parse(said.text()) == said


@given(challenge_texts())
def test_it_is_printable_and_never_the_body_of_a_transaction(said: ChallengeText) -> None:
    """A body of 80 bytes and more names the size of its payload at bytes 78 and 79; printable letters make that larger
    than any payload."""
    data = said.text().encode("ascii")
    assert HEADER_BYTES < len(data) <= TEXT_BYTES_MAX
    assert all(32 <= byte < 127 or byte == 10 for byte in data)
    for prefix in (b"", b"Qubic Signed Message:\n"):
        signed = prefix + data
        assert int.from_bytes(signed[78:80], "little") > PAYLOAD_BYTES_MAX
    with pytest.raises(ValueError):
        bytes.fromhex(said.text())


@given(challenge_texts(), st.data())
def test_any_changed_character_is_another_text(said: ChallengeText, data: st.DataObject) -> None:
    text = said.text()
    at = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.characters().filter(lambda found: found != text[at]))
    changed = text[:at] + letter + text[at + 1 :]
    try:
        read = parse(changed)
    except ValueError:
        return
    assert read != said
    assert read.text() == changed


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + "\n",
        lambda text: " " + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("This signature moves no QU.", "This signature moves QU."),
        lambda text: text.replace("Sign in to QUBIX with this wallet.", "Say hello."),
        lambda text: text.replace("Purpose: sign-in", "Purpose: bind"),
        lambda text: text.replace("Purpose: sign-in", "Purpose: pay"),
        lambda text: text.replace("T12:00:00Z", "T12:60:00Z"),
        lambda text: text.replace("Account: the one of this wallet", "Account: "),
        lambda text: "",
    ],
)
def test_what_no_challenge_says_is_refused(change: Callable[[str], str]) -> None:
    text = ChallengeText(
        domain="market.example",
        network="devnet",
        identity=IDENTITY,
        purpose=Purpose.SIGN_IN,
        nonce="00" * 16,
        issued=NOW,
        expires=NOW + timedelta(minutes=10),
    ).text()
    assert parse(text)
    with pytest.raises(ValueError):
        parse(change(text))


def test_it_says_what_it_is_for() -> None:
    account = UUID(int=7)
    said = ChallengeText(
        domain="market.example:8600",
        network="test",
        identity=IDENTITY,
        purpose=Purpose.BIND,
        nonce="ab" * 16,
        issued=NOW,
        expires=NOW + timedelta(minutes=10),
        account=str(account),
    )
    assert said.text().splitlines() == [
        "market.example:8600 asks for a signature of your Qubic wallet.",
        "",
        "Bind this wallet to a QUBIX account: it will sign in to that account and receive its pay-outs."
        " This signature moves no QU.",
        "",
        "Network: test",
        f"Identity: {IDENTITY}",
        "Purpose: bind",
        f"Account: {account}",
        f"Nonce: {'ab' * 16}",
        "Issued: 2026-11-25T12:00:00Z",
        "Expires: 2026-11-25T12:10:00Z",
    ]


@pytest.mark.parametrize(
    ("domain", "fine"),
    [
        ("market.example", True),
        ("127.0.0.1:8600", True),
        ("[::1]:8600", True),
        ("Market.example", False),
        ("a b", False),
        ("a\nNetwork: main", False),
        ("", False),
        ("a" * 256, False),
    ],
)
def test_domains(domain: str, fine: bool) -> None:
    assert is_domain(domain) is fine
