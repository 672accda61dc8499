# SPDX-License-Identifier: Apache-2.0
"""What the coordinator's processes (coordinator, verifier, database, audit) can be told from outside."""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qubix_protocol import barriers
from qubix_protocol.settings import HTTP_PORT, SettingsError, load, read_config, setting, tables

NETWORKS = ("devnet", "test", "main")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
EXIT_BAD_SETTINGS = 2
REGIONS_MAX = 64
WALLETCONNECT_MAIN = "qubic:mainnet"
_PROJECT = re.compile(r"[0-9a-zA-Z-]{0,64}")
_RELAY = re.compile(r"wss://[0-9a-zA-Z.-]+(:\d{1,5})?|ws://(127\.0\.0\.1|localhost)(:\d{1,5})?")
_CHAIN = re.compile(r"[-a-z0-9]{3,8}:[-_a-zA-Z0-9]{1,32}")
_REGION = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


def default_data_dir() -> Path:
    return Path("/var/lib/qubix") if os.geteuid() == 0 else Path.home() / ".local/share/qubix"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Parsed once at start by `from_environment`; tests construct it with keyword arguments."""

    data_dir: Path = setting(  # noqa: RUF009 - it returns a dataclass field
        "QUBIX_DATA_DIR",
        "Folder that holds everything this installation keeps.",
        default_factory=default_data_dir,
        default_doc="~/.local/share/qubix (/var/lib/qubix as root)",
    )
    database_url: str = setting(
        "DATABASE_URL",
        "PostgreSQL to use, as postgresql://…; empty: the embedded server of the data folder.",
        "",
        secret=True,
    )
    database_pool_max: int = setting(
        "QUBIX_DATABASE_POOL_MAX", "Most database connections of one process.", 10, minimum=2, maximum=200
    )
    database_wait_s: float = setting(
        "QUBIX_DATABASE_WAIT_S", "Seconds to wait for the database at start.", 30.0, minimum=0, maximum=600
    )
    statement_timeout_s: float = setting(
        "QUBIX_STATEMENT_TIMEOUT_S",
        "Seconds after which the database ends a statement.",
        10.0,
        minimum=0.1,
        maximum=600,
    )
    lock_timeout_s: float = setting(
        "QUBIX_LOCK_TIMEOUT_S", "Seconds a statement waits for a row lock.", 5.0, minimum=0.1, maximum=600
    )
    network: str = setting(
        "QUBIX_NETWORK",
        "Network of the ledger; the database remembers it and refuses another one.",
        "devnet",
        choices=NETWORKS,
    )
    http_host: str = setting("QUBIX_HTTP_HOST", "Address the HTTP server listens on.", "127.0.0.1")
    http_port: int = setting(
        "QUBIX_HTTP_PORT", "Port the HTTP server listens on; 0 takes a free one.", HTTP_PORT, minimum=0, maximum=65535
    )
    public_url: str = setting(
        "QUBIX_PUBLIC_URL", "Address under which others reach the API; empty: built from host and port.", ""
    )
    allowed_hosts: tuple[str, ...] = setting(
        "QUBIX_ALLOWED_HOSTS",
        "Further host names accepted in Host and Origin, beside localhost and the public address.",
        (),
    )
    trusted_proxies: tuple[str, ...] = setting(
        "QUBIX_TRUSTED_PROXIES",
        "Addresses or networks of reverse proxies whose X-Forwarded-For is believed; empty: nobody's.",
        (),
    )
    session_life_s: int = setting(
        "QUBIX_SESSION_LIFE_S",
        "Seconds after which a wallet has to sign in again.",
        30 * 86_400,
        minimum=60,
        maximum=366 * 86_400,
    )
    session_check_s: float = setting(
        "QUBIX_SESSION_CHECK_S",
        "Seconds between looks whether the session of an open live connection has ended.",
        30.0,
        minimum=0.01,
        maximum=3_600.0,
    )
    walletconnect_project_id: str = setting(
        "QUBIX_WALLETCONNECT_PROJECT_ID",
        "Project id for WalletConnect; with one the pages offer it, and may reach its relay (docs/adr/0040).",
        "",
    )
    walletconnect_relay: str = setting(
        "QUBIX_WALLETCONNECT_RELAY",
        "WalletConnect's relay: wss:// and a name, no path; ws:// only on loopback.",
        "wss://relay.walletconnect.org",
    )
    walletconnect_chain: str = setting(
        "QUBIX_WALLETCONNECT_CHAIN",
        "Chain that wallets are asked for. Wallets of qubic:mainnet are asked to pay on the main network only.",
        "qubic:mainnet",
    )
    artifact_url: str = setting(
        "QUBIX_ARTIFACT_URL", "Where artifacts are kept (file:///…, s3://…); empty: a folder in the data folder.", ""
    )
    artifact_quota_bytes: int = setting(
        "QUBIX_ARTIFACT_QUOTA_BYTES",
        "Most bytes of inputs that one account may store.",
        64 * 1024**3,
        minimum=1024,
        maximum=2**60,
    )
    artifact_quota_count: int = setting(
        "QUBIX_ARTIFACT_QUOTA_COUNT",
        "Most inputs that one account may store.",
        100_000,
        minimum=1,
        maximum=1_000_000_000,
    )
    artifact_keep_s: int = setting(
        "QUBIX_ARTIFACT_KEEP_S",
        "Seconds for which inputs and results stay after the last job that used them ended, or unused uploads stay.",
        30 * 86_400,
        minimum=3600,
        maximum=10 * 366 * 86_400,
    )
    upload_keep_s: int = setting(
        "QUBIX_UPLOAD_KEEP_S",
        "Seconds after which an unfinished upload that nobody goes on with is removed.",
        86_400,
        minimum=3600,
        maximum=366 * 86_400,
    )
    regions: tuple[str, ...] = setting(
        "QUBIX_REGIONS",
        "Regions of the market, each a topic of gossip. A node that asks for none of them gets the one that is named"
        " like the country of its address, in small letters, else the first.",
        ("local",),
    )
    allow_fallback_adapters: bool = setting(
        "QUBIX_ALLOW_FALLBACK_ADAPTERS",
        "List software that takes a GPU's place (SwiftShader, lavapipe), marked as such, for tests; never on the main"
        " network.",
        False,
    )
    certificate_s: int = setting(
        "QUBIX_CERTIFICATE_S",
        "Seconds for which a node may gossip offers without hearing from the coordinator; renewed at half of it.",
        86_400,
        minimum=2,
        maximum=30 * 86_400,
    )
    fee_bps: int = setting(
        "QUBIX_FEE_BPS", "The market's fee in basis points of what is owed.", 250, minimum=0, maximum=10_000
    )
    lease_s: float = setting(
        "QUBIX_LEASE_S", "Seconds of silence that end an attempt.", 10.0, minimum=0.5, maximum=3600
    )
    return_s: float = setting(
        "QUBIX_RETURN_S",
        "Seconds in which a node whose connection broke must be back, or its attempts end before their leases do.",
        4.0,
        minimum=0.1,
        maximum=3600,
    )
    leave_s: float = setting(
        "QUBIX_LEAVE_S",
        "Seconds in which a provider that said that it goes (a page that was closed, or is reloaded) may be back, "
        "before its attempts go on elsewhere.",
        2.5,
        minimum=0.1,
        maximum=3600,
    )
    heartbeat_s: float = setting(
        "QUBIX_HEARTBEAT_S", "Seconds between a working node's heartbeats.", 2.0, minimum=0.1, maximum=600
    )
    rental_beat_s: float = setting(
        "QUBIX_RENTAL_BEAT_S", "Seconds between the nonces that a rented device answers.", 5.0, minimum=0.2, maximum=60
    )
    rental_reach_s: float = setting(
        "QUBIX_RENTAL_REACH_S",
        "Seconds after an answer in which the next one must come, or the rental is unreachable and its meter stands.",
        15.0,
        minimum=0.5,
        maximum=600,
    )
    rental_silence_s: float = setting(
        "QUBIX_RENTAL_SILENCE_S",
        "Seconds without an answer that end a rental.",
        60.0,
        minimum=1,
        maximum=3600,
    )
    rental_settle_s: float = setting(
        "QUBIX_RENTAL_SETTLE_S", "Seconds between the settlements of a rental.", 60.0, minimum=1, maximum=86_400
    )
    rental_notice_s: float = setting(
        "QUBIX_RENTAL_NOTICE_S",
        "Seconds of notice that a provider owes who ends a rental before its time.",
        600.0,
        minimum=0,
        maximum=7 * 86_400,
    )
    trial_every_s: float = setting(
        "QUBIX_TRIAL_EVERY_S",
        "Usual seconds between two trials of a node's hardware, at random times; 0: nobody is tried, or verified.",
        21_600.0,
        minimum=0,
        maximum=30 * 86_400,
    )
    trial_first_s: float = setting(
        "QUBIX_TRIAL_FIRST_S",
        "Usual seconds from a node's passed self-test to its first trial.",
        60.0,
        minimum=0,
        maximum=86_400,
    )
    trial_age_s: float = setting(
        "QUBIX_TRIAL_AGE_S",
        "Seconds after which a self-test or a trial verifies nobody any more.",
        7 * 86_400.0,
        minimum=1,
        maximum=366 * 86_400,
    )
    trial_fill_s: float = setting(
        "QUBIX_TRIAL_FILL_S",
        "Seconds that filling a card's memory in a trial aims at; a quarter of it on a processor.",
        8.0,
        minimum=0.1,
        maximum=60,
    )
    trial_slack_s: float = setting(
        "QUBIX_TRIAL_SLACK_S",
        "Seconds that the network may add to each timed answer of a trial.",
        1.0,
        minimum=0.1,
        maximum=120,
    )
    trial_cpu_bytes: int = setting(
        "QUBIX_TRIAL_CPU_BYTES",
        "Most memory of a processor that a trial fills; of a card it fills nine tenths of what is claimed.",
        256 * 1024**2,
        minimum=1024**2,
        maximum=2**50,
    )
    accept_s: float = setting(
        "QUBIX_ACCEPT_S",
        "Seconds in which the result of a kernel without a verifier can be disputed before it is paid.",
        86_400.0,
        minimum=1,
        maximum=30 * 86_400,
    )
    dispute_s: float = setting(
        "QUBIX_DISPUTE_S",
        "Seconds after a job's end in which it can still be disputed.",
        7 * 86_400.0,
        minimum=1,
        maximum=30 * 86_400,
    )
    dispute_answer_s: float = setting(
        "QUBIX_DISPUTE_ANSWER_S",
        "Seconds in which the other side answers a dispute, or loses by default where no verdict answers for it.",
        3 * 86_400.0,
        minimum=1,
        maximum=30 * 86_400,
    )
    dispute_rerun_s: float = setting(
        "QUBIX_DISPUTE_RERUN_S",
        "Seconds for running disputed units again and looking at them a second time.",
        86_400.0,
        minimum=1,
        maximum=30 * 86_400,
    )
    dispute_judge_s: float = setting(
        "QUBIX_DISPUTE_JUDGE_S",
        "Seconds in which an arbiter decides a dispute, or the second look does.",
        7 * 86_400.0,
        minimum=1,
        maximum=30 * 86_400,
    )
    dispute_bond_min_qu: int = setting(
        "QUBIX_DISPUTE_BOND_MIN_QU", "Least bond of a dispute.", 100, minimum=1, maximum=10**15
    )
    dispute_two_above_qu: int = setting(
        "QUBIX_DISPUTE_TWO_ABOVE_QU",
        "Disputes about more than this need two arbiters who agree.",
        1_000_000,
        minimum=0,
        maximum=10**15,
    )
    fund_bps: int = setting(
        "QUBIX_FUND_BPS", "Basis points of the fees that are set aside for awards.", 2_000, minimum=0, maximum=10_000
    )
    fund_day_max_qu: int = setting(
        "QUBIX_FUND_DAY_MAX_QU", "Most that the fund pays in 24 hours.", 1_000_000, minimum=0, maximum=10**15
    )
    fund_account_day_max_qu: int = setting(
        "QUBIX_FUND_ACCOUNT_DAY_MAX_QU",
        "Most that the fund pays one account in 24 hours.",
        100_000,
        minimum=0,
        maximum=10**15,
    )
    reputation_unit_qu: int = setting(
        "QUBIX_REPUTATION_UNIT_QU",
        "What work must be worth to count as one piece of evidence in a provider's reputation.",
        100,
        minimum=1,
        maximum=10**12,
    )
    spot_day_max_qu: int = setting(
        "QUBIX_SPOT_DAY_MAX_QU",
        "Most that spot checks may take from the fund in 24 hours; 0: none are carried out.",
        1_000_000,
        minimum=0,
        maximum=10**15,
    )
    withdrawal_min_qu: int = setting(
        "QUBIX_WITHDRAWAL_MIN_QU", "Least amount of one withdrawal.", 1000, minimum=1, maximum=10**15
    )
    withdrawal_max_qu: int = setting(
        "QUBIX_WITHDRAWAL_MAX_QU", "Most that one withdrawal may take.", 10**10, minimum=1, maximum=10**15
    )
    withdrawal_day_max_qu: int = setting(
        "QUBIX_WITHDRAWAL_DAY_MAX_QU",
        "Most that one account may ask for within 24 hours.",
        2 * 10**10,
        minimum=1,
        maximum=10**15,
    )
    withdrawal_approval_above_qu: int = setting(
        "QUBIX_WITHDRAWAL_APPROVAL_ABOVE_QU",
        "Withdrawals above this wait for an operator's word.",
        10**9,
        minimum=0,
        maximum=10**15,
    )
    withdrawal_hot_limit_qu: int = setting(
        "QUBIX_WITHDRAWAL_HOT_LIMIT_QU",
        "Most that leaves the hot wallet within 24 hours without an operator's word, all accounts together.",
        10**11,
        minimum=0,
        maximum=10**15,
    )
    withdrawal_address_delay_s: int = setting(
        "QUBIX_WITHDRAWAL_ADDRESS_DELAY_S",
        "Seconds after which withdrawals to a newly listed address may leave.",
        86_400,
        minimum=0,
        maximum=30 * 86_400,
    )
    withdrawal_earnings_delay_s: int = setting(
        "QUBIX_WITHDRAWAL_EARNINGS_DELAY_S",
        "Seconds after which new earnings can be withdrawn.",
        3600,
        minimum=0,
        maximum=30 * 86_400,
    )
    withdrawal_wait_s: int = setting(
        "QUBIX_WITHDRAWAL_WAIT_S",
        "Seconds after which a withdrawal that could not be sent, or that no operator decided, goes back.",
        7 * 86_400,
        minimum=60,
        maximum=90 * 86_400,
    )
    withdrawal_tries_max: int = setting(
        "QUBIX_WITHDRAWAL_TRIES_MAX",
        "Signed transactions that may miss their tick before a withdrawal fails.",
        5,
        minimum=1,
        maximum=100,
    )
    withdrawal_ticks_ahead: int = setting(
        "QUBIX_WITHDRAWAL_TICKS_AHEAD",
        "Ticks between signing a withdrawal and the tick it is to run in.",
        15,
        minimum=5,
        maximum=1000,
    )
    qubic_url: tuple[str, ...] = setting(
        "QUBIX_QUBIC_URL",
        "Base addresses of the Qubic network's API, such as https://rpc.qubic.org; with several, another one is asked"
        " when one does not answer. Empty: no deposits or withdrawals (`qubix up` starts a devnet).",
        (),
    )
    deposit_min_qu: int = setting(
        "QUBIX_DEPOSIT_MIN_QU",
        "Least payment that is credited; smaller ones are shown and kept.",
        1000,
        minimum=1,
        maximum=10**15,
    )
    outbox_poll_ms: int = setting(
        "QUBIX_OUTBOX_POLL_MS",
        "Milliseconds between looks at the outbox while somebody listens.",
        50,
        minimum=5,
        maximum=10_000,
    )
    reserves_fresh_s: int = setting(
        "QUBIX_RESERVES_FRESH_S",
        "Seconds for which a published proof of reserves serves whoever asks, before another one is made.",
        60,
        minimum=1,
        maximum=86_400,
    )
    sample_keep_s: int = setting(
        "QUBIX_SAMPLE_KEEP_S",
        "Seconds for which each reading of a device is kept; whole days are dropped at once.",
        86_400,
        minimum=7_200,
        maximum=30 * 86_400,
    )
    sample_minute_keep_s: int = setting(
        "QUBIX_SAMPLE_MINUTE_KEEP_S",
        "Seconds for which readings are kept by the minute; whole days are dropped at once.",
        7 * 86_400,
        minimum=86_400,
        maximum=366 * 86_400,
    )
    sample_hour_keep_s: int = setting(
        "QUBIX_SAMPLE_HOUR_KEEP_S",
        "Seconds for which readings by the hour, and changes of price and availability, are kept.",
        400 * 86_400,
        minimum=7 * 86_400,
        maximum=10 * 366 * 86_400,
    )
    outbox_keep_s: int = setting(
        "QUBIX_OUTBOX_KEEP_S",
        "Seconds an event stays readable for clients that resume.",
        3600,
        minimum=10,
        maximum=2_592_000,
    )
    log_level: str = setting("QUBIX_LOG_LEVEL", "Least severe log lines to write.", "INFO", choices=LOG_LEVELS)
    log_json: bool = setting("QUBIX_LOG_JSON", "Write each log line as JSON.", False)
    barriers: Path | None = setting(  # noqa: RUF009 - it returns a dataclass field
        "QUBIX_BARRIERS",
        "Unix socket of a test that may hold this process at named steps of a job; never on the main network.",
        None,
    )
    ready_fd: int | None = setting(
        "QUBIX_READY_FD", "File descriptor that gets one JSON line once the process serves.", None, minimum=0
    )

    @property
    def postgres_dir(self) -> Path:
        return self.data_dir / "postgres"

    @property
    def artifacts_dir(self) -> Path:
        return self.data_dir / "artifacts"


def from_mappings(env: Mapping[str, str], toml: Mapping[str, object]) -> Settings:
    """`toml` is the whole configuration file; the coordinator's table is `[coordinator]`."""
    settings = load(Settings, env, tables(toml, "coordinator"))
    refuse_barriers(settings)
    if settings.allow_fallback_adapters and settings.network == "main":
        raise SettingsError(
            "QUBIX_ALLOW_FALLBACK_ADAPTERS",
            "software is no GPU, and nobody on the main network rents it",
            "Leave it unset",
        )
    if settings.database_url and not settings.database_url.startswith(("postgresql://", "postgres://")):
        raise SettingsError("DATABASE_URL", "is not a PostgreSQL address", "Write it as postgresql://user@host/name")
    if settings.lease_s < 2 * settings.heartbeat_s:
        raise SettingsError(
            "QUBIX_LEASE_S",
            f"{settings.lease_s:g} is less than two heartbeats of {settings.heartbeat_s:g} s",
            "Raise QUBIX_LEASE_S or lower QUBIX_HEARTBEAT_S",
        )
    if settings.withdrawal_min_qu > settings.withdrawal_max_qu:
        raise SettingsError(
            "QUBIX_WITHDRAWAL_MIN_QU",
            f"{settings.withdrawal_min_qu} is more than QUBIX_WITHDRAWAL_MAX_QU",
            "Lower it, or raise QUBIX_WITHDRAWAL_MAX_QU",
        )
    if not 1 <= len(settings.regions) <= REGIONS_MAX or not all(map(_REGION.fullmatch, settings.regions)):
        raise SettingsError(
            "QUBIX_REGIONS",
            f"{','.join(settings.regions)!r} does not name 1 to {REGIONS_MAX} regions",
            "Use small letters, digits and hyphens, separated by commas, like eu-west,us",
        )
    if not 2 * settings.rental_beat_s <= settings.rental_reach_s <= settings.rental_silence_s:
        raise SettingsError(
            "QUBIX_RENTAL_REACH_S",
            f"{settings.rental_reach_s:g} is less than two beats of {settings.rental_beat_s:g} s, or more than the"
            f" silence of {settings.rental_silence_s:g} s that ends a rental",
            "Set it between twice QUBIX_RENTAL_BEAT_S and QUBIX_RENTAL_SILENCE_S",
        )
    _check_walletconnect(settings)
    return settings


def _check_walletconnect(settings: Settings) -> None:
    """The relay's address stands in the pages' policy: nothing but an origin may get there."""
    if not _PROJECT.fullmatch(settings.walletconnect_project_id):
        raise SettingsError(
            "QUBIX_WALLETCONNECT_PROJECT_ID",
            "is no project id",
            "Copy it from the project's page at WalletConnect: letters and digits",
        )
    relay = settings.walletconnect_relay
    if not _RELAY.fullmatch(relay) or (settings.network == "main" and not relay.startswith("wss://")):
        raise SettingsError(
            "QUBIX_WALLETCONNECT_RELAY",
            f"{relay!r} is no address of a relay",
            "Write wss:// and its name, without a path, or leave it unset",
        )
    if not _CHAIN.fullmatch(settings.walletconnect_chain):
        raise SettingsError(
            "QUBIX_WALLETCONNECT_CHAIN",
            f"{settings.walletconnect_chain!r} is no chain",
            "Write it like qubic:mainnet, or leave it unset",
        )


def refuse_barriers(settings: Settings) -> None:
    if problem := barriers.forbidden(settings.barriers, settings.network):
        raise SettingsError("QUBIX_BARRIERS", problem, "Leave it unset")


def from_environment() -> Settings:
    return from_mappings(os.environ, read_config(os.environ, read_text))


def read_text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def from_environment_or_exit() -> Settings:
    """For the processes' entry points: a bad setting is one line on standard error and exit status 2."""
    try:
        return from_environment()
    except SettingsError as problem:
        print(f"qubix: {problem}", file=sys.stderr)
        raise SystemExit(EXIT_BAD_SETTINGS) from None
