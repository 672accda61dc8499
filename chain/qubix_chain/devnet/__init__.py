# SPDX-License-Identifier: Apache-2.0
"""`qubix devnet`: an honest stand-in for the Qubic network on this machine, for development and tests."""
