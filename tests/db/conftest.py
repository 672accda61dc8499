# SPDX-License-Identifier: Apache-2.0
"""Every test in this folder can ask for `db`, `database_url` and `pg_server`."""

from tests.support_pg import database_url, db, pg_server

__all__ = ["database_url", "db", "pg_server"]
