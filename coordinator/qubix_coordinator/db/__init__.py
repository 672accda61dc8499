# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL: the embedded server, connections and transactions, migrations."""
