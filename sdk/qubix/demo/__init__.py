# SPDX-License-Identifier: Apache-2.0
"""`qubix demo`: a whole market on this machine, money in and out of it, two real jobs, and the ledger's audit."""
