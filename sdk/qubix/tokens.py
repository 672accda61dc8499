# SPDX-License-Identifier: Apache-2.0
"""Which token opens the account: the one that was set, that of the last sign-in, or the market's own machine's."""

import time
from pathlib import Path
from typing import Final

import msgspec

from qubix import files
from qubix.errors import KeyFileRefused
from qubix.settings import TOKEN_FILE, Settings

SESSIONS_FILE: Final = "sessions.json"


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One coordinator's session. The file is private; the token in it opens the account until it ends."""

    token: str
    session_id: str
    expires_ms: int


def token_of(found: Settings) -> str:
    """ "" when there is none. A session that has ended by itself counts as none."""
    if found.token:
        return found.token
    kept = read(found.data_dir).get(found.url)
    if kept is not None and kept.expires_ms > time.time() * 1000:
        return kept.token
    return (files.read_private(found.data_dir / TOKEN_FILE) or b"").decode("ascii", "replace").strip()


def keep(data_dir: Path, url: str, session: Kept) -> None:
    _write(data_dir, read(data_dir) | {url: session})


def forget(data_dir: Path, url: str) -> None:
    kept = read(data_dir)
    if kept.pop(url, None) is not None:
        _write(data_dir, kept)


def read(data_dir: Path) -> dict[str, Kept]:
    """By address. Raises `KeyFileRefused`."""
    path = data_dir / SESSIONS_FILE
    content = files.read_private(path)
    if content is None:
        return {}
    try:
        return msgspec.json.decode(content, type=dict[str, Kept])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise KeyFileRefused(
            f"{path} cannot be read", remedy=f"Remove {path} and sign in again with your wallet."
        ) from None


def _write(data_dir: Path, kept: dict[str, Kept]) -> None:
    files.replace_private(data_dir / SESSIONS_FILE, msgspec.json.format(msgspec.json.encode(kept)))
