# SPDX-License-Identifier: Apache-2.0
"""The network's HTTP API: `/live/v1` (what is now) and `/query/v1` (the archive)."""

from qubix_chain.rpc.client import Client
from qubix_chain.rpc.several import Agreed, FailOver, Source

__all__ = ["Agreed", "Client", "FailOver", "Source"]
