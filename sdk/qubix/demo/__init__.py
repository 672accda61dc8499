# SPDX-License-Identifier: Apache-2.0
"""`qubix demo`: a whole market on this machine, two real jobs through it, and the ledger's audit."""
