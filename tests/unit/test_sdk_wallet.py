# SPDX-License-Identifier: Apache-2.0
"""The Qubic key on this machine: how it is kept, what opens it, and that nobody who did not ask is shown its seed."""

import json
import logging
import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import keyring
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from keyring.backends import fail

import qubix
from qubix import keystore
from qubix.cli import main
from qubix.errors import (
    BadUsage,
    KeyFileRefused,
    KeyringUnavailable,
    KeystoreDamaged,
    NoWallet,
    WalletExists,
    WalletLocked,
    WrongPassphrase,
)
from qubix.keystore import Cost, Seed
from qubix.wallet import Wallet
from qubix_chain import identity, messages
from qubix_chain.messages import Scheme
from qubix_chain.transaction import Transaction
from tests.support.keyrings import ForgetfulKeyring, LockedKeyring, MemoryKeyring

PASSPHRASE = "correct horse battery"
SEED = "wqbdupxgcaimwdsnchitjmsplzclkqokhadgehdxqogeeiovzvadstt"
IDENTITY = "SUZFFQSCVPHYYBDCQODEMFAOKRJDDDIRJFFIWFLRDDJQRPKMJNOCSSKHXHGK"
CHEAP = Cost(log_n=10)


def _sealed(data_dir: Path) -> keystore.Kept:
    return keystore.create_sealed(data_dir, Seed(SEED), PASSPHRASE, cost=CHEAP)


def test_a_wallet_is_made_unlocked_and_opens_with_its_passphrase(tmp_path: Path) -> None:
    made = Wallet.create(tmp_path, passphrase=PASSPHRASE)
    assert made.is_unlocked
    text = "Sign in to QUBIX"
    opened = Wallet.open(tmp_path)
    assert opened.identity == made.identity
    assert opened.public_key == made.public_key, "the order key stays what it was"
    with pytest.raises(WalletLocked):
        opened.sign_message(text)
    opened.unlock(PASSPHRASE)
    assert opened.qubic_key == made.qubic_key
    for scheme in Scheme:
        assert messages.verify(made.qubic_key, text, opened.sign_message(text, scheme)) is scheme
    opened.lock()
    with pytest.raises(WalletLocked):
        opened.sign_message(text)


def test_an_imported_seed_is_the_same_wallet_and_signs_transactions(tmp_path: Path) -> None:
    wallet = Wallet.import_seed(tmp_path, SEED, passphrase=PASSPHRASE)
    assert wallet.identity == IDENTITY
    source = identity.decode(IDENTITY)
    unsigned = Transaction.build(source=source, destination=bytes(31) + b"\1", amount=5, tick=9)
    assert Transaction.parse(wallet.sign_transaction(unsigned).to_bytes()).source == source
    other = Transaction.build(source=bytes(31) + b"\1", destination=source, amount=5, tick=9)
    with pytest.raises(BadUsage, match="not that of the subseed"):
        wallet.sign_transaction(other)
    with pytest.raises(BadUsage, match="could be a transaction"):
        wallet.sign_message(unsigned.body.hex())
    assert wallet.reveal_seed(PASSPHRASE) == SEED


def test_the_file_is_private_and_holds_no_seed(tmp_path: Path) -> None:
    kept = _sealed(tmp_path)
    assert kept.path.stat().st_mode & 0o777 == 0o600
    content = kept.path.read_text()
    assert SEED not in content
    header = json.loads(content.splitlines()[0])
    assert (header["format"], header["version"], header["identity"]) == ("qubix-keystore", 1, IDENTITY)
    assert os.listdir(tmp_path) == ["wallet.qubic"], "nothing half-written is left beside it"
    kept.path.chmod(0o640)
    with pytest.raises(KeyFileRefused, match="others"):
        keystore.read(tmp_path)


def test_the_default_cost_is_what_the_page_says(tmp_path: Path) -> None:
    """Scrypt with 128 MiB: fewer tests of a passphrase a second than cores a thief has."""
    assert (Cost().log_n, Cost().r, Cost().p) == (17, 8, 1)


def test_a_wallet_is_never_overwritten(tmp_path: Path) -> None:
    before = _sealed(tmp_path).path.read_bytes()
    for make in (
        lambda: Wallet.create(tmp_path, passphrase=PASSPHRASE),
        lambda: Wallet.import_seed(tmp_path, SEED, passphrase=PASSPHRASE),
        lambda: Wallet.create(tmp_path, keyring=MemoryKeyring()),
    ):
        with pytest.raises(WalletExists):
            make()
    assert (tmp_path / "wallet.qubic").read_bytes() == before


def test_another_passphrase_does_not_open_it(tmp_path: Path) -> None:
    kept = _sealed(tmp_path)
    for wrong in ("", "correct horse", PASSPHRASE + " ", PASSPHRASE.upper()):
        with pytest.raises(WrongPassphrase):
            keystore.open_sealed(kept, wrong)
    assert keystore.open_sealed(kept, PASSPHRASE).reveal() == SEED


def test_a_passphrase_is_the_same_however_it_was_typed(tmp_path: Path) -> None:
    composed, apart = "gr\u00fc\u00dfe an alle", "gru\u0308\u00dfe an alle"
    kept = keystore.create_sealed(tmp_path, Seed(SEED), composed, cost=CHEAP)
    assert keystore.open_sealed(kept, apart).reveal() == SEED


@hypothesis_settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_told_from_a_wrong_passphrase(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = _sealed(tmp_path_factory.mktemp("kept")).path
    content = path.read_bytes()
    at = data.draw(st.integers(0, len(content) - 2))
    cut = data.draw(st.booleans())
    changed = content[:at] if cut else content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    path.write_bytes(changed)
    with pytest.raises(KeystoreDamaged):
        keystore.open_sealed(keystore.read_existing(path.parent), PASSPHRASE)


def test_the_header_is_authenticated(tmp_path: Path) -> None:
    """Who changes it and mends the checksum as well still opens nothing."""
    path = _sealed(tmp_path).path
    header, sealed, _ = path.read_bytes().split(b"\n", 2)
    for changed in (
        header.replace(IDENTITY.encode(), identity.encode(bytes(32)).encode()),
        header.replace(b'"created_ms":1', b'"created_ms":2'),
    ):
        assert changed != header
        body = changed + b"\n" + sealed + b"\n"
        path.write_bytes(body + keystore._digest(body) + b"\n")
        with pytest.raises(WrongPassphrase):
            keystore.open_sealed(keystore.read_existing(tmp_path), PASSPHRASE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"version":1', b'"version":2'),
        (b'"log_n":10', b'"log_n":40'),
        (b'"kdf":"scrypt"', b'"kdf":"md5"'),
        (b'"kept_in":"file"', b'"kept_in":"keyring"'),
        (b'"kept_in"', b'"more":1,"kept_in"'),
    ],
)
def test_a_header_of_another_kind_is_refused(tmp_path: Path, old: bytes, new: bytes) -> None:
    path = _sealed(tmp_path).path
    header, sealed, _ = path.read_bytes().split(b"\n", 2)
    assert old in header
    body = header.replace(old, new) + b"\n" + sealed + b"\n"
    path.write_bytes(body + keystore._digest(body) + b"\n")
    with pytest.raises(KeystoreDamaged):
        keystore.read(tmp_path)


def test_without_a_wallet_the_way_to_one_is_told(tmp_path: Path) -> None:
    wallet = Wallet.open(tmp_path)
    assert wallet.identity is None
    for use in (lambda: wallet.sign_message("a text"), lambda: wallet.unlock(PASSPHRASE)):
        with pytest.raises(NoWallet) as refused:
            use()
        assert "qubix wallet create" in refused.value.remedy


def test_the_keyring_keeps_the_seed_and_the_file_says_so(tmp_path: Path) -> None:
    ring = MemoryKeyring()
    made = Wallet.import_seed(tmp_path, SEED, keyring=ring)
    assert ring.kept == {("qubix", IDENTITY): SEED}
    assert SEED not in (tmp_path / "wallet.qubic").read_text()
    opened = Wallet.open(tmp_path)
    assert opened.identity == made.identity == IDENTITY
    opened.unlock(keyring=ring)
    assert opened.qubic_key == made.qubic_key
    ring.kept["qubix", IDENTITY] = "a" * 55
    with pytest.raises(KeystoreDamaged, match="another identity"):
        opened.unlock(keyring=ring)
    ring.kept.clear()
    with pytest.raises(NoWallet):
        opened.unlock(keyring=ring)


@pytest.mark.parametrize("ring", [LockedKeyring(), ForgetfulKeyring()])
def test_a_keyring_that_does_not_work_leaves_no_file(tmp_path: Path, ring: MemoryKeyring) -> None:
    with pytest.raises(KeyringUnavailable) as refused:
        Wallet.import_seed(tmp_path, SEED, keyring=ring)
    assert SEED not in _told(refused.value)
    assert keystore.read(tmp_path) is None


@pytest.mark.parametrize("both", [{}, {"passphrase": PASSPHRASE, "keyring": MemoryKeyring()}])
def test_a_seed_is_kept_in_one_way(tmp_path: Path, both: dict[str, object]) -> None:
    with pytest.raises(BadUsage, match="passphrase or in a keyring"):
        Wallet.create(tmp_path, **both)  # type: ignore[arg-type]


def test_a_seed_is_not_in_what_is_printed_logged_or_raised(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    seed = Seed(SEED)
    wallet = Wallet.import_seed(tmp_path, SEED, passphrase=PASSPHRASE)
    shown = [repr(seed), str(seed), repr(wallet), repr(wallet._unlocked), repr(wallet.kept), f"{wallet!s}"]
    for attempt in (
        lambda: wallet.unlock("another passphrase"),
        lambda: Wallet.import_seed(tmp_path, SEED, passphrase=PASSPHRASE),
        lambda: Wallet.import_seed(tmp_path / "b", SEED, passphrase="short"),
        lambda: Wallet.import_seed(tmp_path / "b", SEED + "x", passphrase=PASSPHRASE),
        lambda: pickle.dumps(seed),
    ):
        with pytest.raises((qubix.QubixError, TypeError)) as refused:
            attempt()
        shown.append(_told(refused.value))
    for text in (*shown, caplog.text):
        assert SEED not in text
        assert PASSPHRASE not in text


def _told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + str(getattr(error, "remedy", ""))


# The command line

Qubix = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Qubix:
    env = {"QUBIX_DATA_DIR": str(tmp_path / "data"), "QUBIX_COORDINATOR_URL": "http://127.0.0.1:9"}

    def invoke(*words: str, typed: str | None = None, **more: str) -> Result:
        return CliRunner().invoke(main, ["wallet", *words], env=env | more, input=typed)

    return invoke


@pytest.fixture
def passphrase_file(tmp_path: Path) -> str:
    path = tmp_path / "passphrase"
    path.write_text(PASSPHRASE + "\n")
    path.chmod(0o600)
    return str(path)


@pytest.fixture
def system_keyring() -> Iterator[MemoryKeyring]:
    before, ring = keyring.get_keyring(), MemoryKeyring()
    keyring.set_keyring(ring)
    yield ring
    keyring.set_keyring(before)


@pytest.fixture
def no_keyring() -> Iterator[None]:
    before = keyring.get_keyring()
    keyring.set_keyring(fail.Keyring())
    yield
    keyring.set_keyring(before)


def test_create_asks_twice_and_shows_no_seed(run: Qubix, tmp_path: Path) -> None:
    differing = run("create", typed=f"{PASSPHRASE}\nanother one\n")
    assert differing.exit_code == 2
    made = run("create", "--json", typed=f"{PASSPHRASE}\n{PASSPHRASE}\n")
    assert made.exit_code == 0
    told = json.loads(made.stdout)
    assert told["kept_in"] == "file"
    shown = run("seed", typed=f"y\n{PASSPHRASE}\n")
    assert shown.exit_code == 0
    assert Seed(shown.stdout.strip()).identity == told["identity"]
    assert shown.stdout.strip() not in made.output
    again = run("create", typed=f"{PASSPHRASE}\n{PASSPHRASE}\n")
    assert (again.exit_code, "already" in again.stderr) == (2, True)


def test_what_is_on_this_machine_is_shown_without_a_market(run: Qubix, passphrase_file: str) -> None:
    """Nobody answers at the address of these tests, and no passphrase is needed."""
    before = json.loads(run("show", "--offline", "--json").stdout)
    assert (before["identity"], before["kept_in"]) == (None, None)
    run("import", "--seed-file", "-", typed=SEED + "\n", QUBIX_WALLET_PASSPHRASE_FILE=passphrase_file)
    shown = json.loads(run("show", "--offline", "--json").stdout)
    assert (shown["identity"], shown["kept_in"]) == (IDENTITY, "file")
    assert "balance_qu" not in shown
    assert IDENTITY in run("show", "--offline").stdout
    assert run("show", QUBIX_TRIES_MAX="1").exit_code == 1


def test_the_seed_is_shown_only_to_who_confirms_and_knows_the_passphrase(run: Qubix, passphrase_file: str) -> None:
    env = {"QUBIX_WALLET_PASSPHRASE_FILE": passphrase_file}
    assert run("import", "--seed-file", "-", typed=SEED + "\n", **env).exit_code == 0
    refused = run("seed", typed="n\n", **env)
    assert refused.exit_code != 0
    assert SEED not in refused.output
    wrong = run("seed", "--yes", QUBIX_WALLET_PASSPHRASE="something else")
    assert (wrong.exit_code, SEED in wrong.output) == (2, False)
    assert run("seed", "--yes", **env).stdout == SEED + "\n"


def test_a_seed_is_asked_for_or_read_from_a_private_file(run: Qubix, tmp_path: Path, passphrase_file: str) -> None:
    env = {"QUBIX_WALLET_PASSPHRASE_FILE": passphrase_file}
    assert run("import", typed="not a seed\n", **env).exit_code == 2
    path = tmp_path / "seed"
    path.write_text(SEED)
    path.chmod(0o644)
    open_to_all = run("import", "--seed-file", str(path), **env)
    assert (open_to_all.exit_code, "chmod 600" in open_to_all.stderr) == (1, True)
    path.chmod(0o600)
    made = run("import", "--seed-file", str(path), **env)
    assert (made.exit_code, IDENTITY in made.stdout, SEED in made.output) == (0, True, False)
    assert run("import", typed=SEED + "\n", **env).exit_code == 2, "there is one already"


def test_a_wallet_in_the_systems_keyring_needs_no_passphrase(run: Qubix, system_keyring: MemoryKeyring) -> None:
    made = run("create", "--keyring", "--json")
    assert made.exit_code == 0
    told = json.loads(made.stdout)
    assert list(system_keyring.kept) == [("qubix", told["identity"])]
    assert run("seed", "--yes").stdout.strip() == system_keyring.kept["qubix", told["identity"]]


@pytest.mark.usefixtures("no_keyring")
def test_on_a_machine_without_a_keyring_the_other_way_is_told(run: Qubix) -> None:
    refused = run("create", "--keyring")
    assert refused.exit_code == 1
    assert "leave --keyring out" in refused.stderr


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"QUBIX_WALLET_PASSPHRASE_FILE": "/nowhere/at/all"}, "there is no file"),
        ({"QUBIX_WALLET_PASSPHRASE_FD": "987"}, "cannot be read"),
        ({"QUBIX_WALLET_PASSPHRASE_FD": "987", "QUBIX_WALLET_PASSPHRASE": "x" * 9}, "more than one way"),
        ({"QUBIX_WALLET_PASSPHRASE": "short"}, "fewer than 8"),
    ],
)
def test_bad_passphrase_settings_are_told(run: Qubix, settings: dict[str, str], told: str) -> None:
    refused = run("create", **settings)
    assert refused.exit_code == 2
    assert told in refused.stderr


def test_scripts_give_the_passphrase_by_a_descriptor_and_nothing_is_asked_unseen(tmp_path: Path) -> None:
    environment = os.environ | {"QUBIX_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "qubix", "wallet", "create", "--json"]

    def start(**more: str) -> "subprocess.CompletedProcess[str]":
        reads, writes = os.pipe()
        with os.fdopen(writes, "w") as file:
            file.write(PASSPHRASE)
        try:
            return subprocess.run(
                command,
                env=environment | {name: value.format(fd=reads) for name, value in more.items()},
                pass_fds=[reads],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                start_new_session=True,
            )
        finally:
            os.close(reads)

    unasked = start()
    assert (unasked.returncode, unasked.stdout) == (2, "")
    assert "QUBIX_WALLET_PASSPHRASE_FILE" in unasked.stderr
    made = start(QUBIX_WALLET_PASSPHRASE_FD="{fd}")
    assert made.returncode == 0, made.stderr
    wallet = Wallet.open(tmp_path)
    wallet.unlock(PASSPHRASE)
    assert wallet.identity == json.loads(made.stdout)["identity"]
