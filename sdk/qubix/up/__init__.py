# SPDX-License-Identifier: Apache-2.0
"""`qubix up`: a whole market on this machine, as processes of their own."""
