# SPDX-License-Identifier: Apache-2.0
"""Qubic as a library: keys and signatures, identities, transactions, the network's API, and a local network."""
