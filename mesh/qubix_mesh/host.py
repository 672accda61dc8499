# SPDX-License-Identifier: Apache-2.0
"""The door to the real mesh: `open_mesh`."""

from qubix_mesh.p2p.connection import Health as Health
from qubix_mesh.p2p.host import DIAL_S as DIAL_S
from qubix_mesh.p2p.host import open_mesh as open_mesh
