# SPDX-License-Identifier: Apache-2.0
"""What the first start makes: the coordinator's key, and the tokens of the developer and of the gateways.

A token lives in two places, a private file and (as a digest) the database. The file comes first: with a file and a
fresh database, or after a crash between the two, the next start gives the database what the file says.
"""

import logging
import secrets
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4, uuid5

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts.rules import TOKEN_BYTES, Scope, digest_of_token, looks_like_token, token_of
from qubix_coordinator.artifacts.keys import load_or_create, write_once
from qubix_coordinator.db.database import Database, Tx, execute
from qubix_coordinator.errors import Unavailable
from qubix_protocol.keys import SigningKey

log = logging.getLogger(__name__)
_ACCOUNTS: Final = UUID("6b2f5f1e-8c67-5d8f-9b39-2f4d3c1a7e10")
DEVELOPER: Final = "developer"
GATEWAY: Final = "gateway"
ARBITERS: Final = ("arbiter", "arbiter-2")
"""Large disputes need two who agree."""


def coordinator_key(data_dir: Path) -> SigningKey:
    """The key that nodes pin at enrolment."""
    return SigningKey(load_or_create(data_dir / "coordinator.key"))


async def ensure_tokens(db: Database, data_dir: Path) -> None:
    """`developer.token` (user and operator), `gateway.token` and those of two arbiters, each in its file and in the
    database."""
    await _ensure_token(db, data_dir, DEVELOPER, "operator", [Scope.USER, Scope.OPERATOR])
    await _ensure_token(db, data_dir, GATEWAY, "service", [Scope.GATEWAY])
    for name in ARBITERS:
        await _ensure_token(db, data_dir, name, "service", [Scope.ARBITER])


async def _ensure_token(db: Database, data_dir: Path, name: str, kind: str, scopes: list[Scope]) -> None:
    token = _token_in(data_dir / f"{name}.token")

    async def step(tx: Tx) -> None:
        account_id = await accounts.create_account(tx, name, kind, uuid5(_ACCOUNTS, name))
        # A token that was revoked stays revoked: its row is there already.
        await execute(
            tx,
            "INSERT INTO api_token (id, digest, account_id, name, scopes, made_by_hand)"
            " VALUES ($1, $2, $3, $4, $5::text[], true)"
            " ON CONFLICT (digest) DO NOTHING",
            uuid4(),
            digest_of_token(token),
            account_id,
            f"{name}.token",
            sorted(scope.value for scope in scopes),
        )

    await db.run(step)


def _token_in(path: Path) -> str:
    if write_once(path, f"{token_of(secrets.token_bytes(TOKEN_BYTES))}\n".encode()):
        log.info("bootstrap.token_made", extra={"file": str(path)})
    token = path.read_text(encoding="ascii", errors="replace").strip()
    if not looks_like_token(token):
        raise Unavailable(f"{path} does not hold a token", remedy="Remove the file: the next start makes a new one")
    return token
