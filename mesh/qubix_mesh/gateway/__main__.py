# SPDX-License-Identifier: Apache-2.0
"""`python -m qubix_mesh.gateway`: 0 after a signal, 2 for settings or arguments that cannot be used."""

import sys

import trio

from qubix_mesh.errors import BadAddress, BadPin, NotListening
from qubix_mesh.gateway import logs
from qubix_mesh.gateway.app import serve
from qubix_mesh.gateway.errors import BadKeyFile
from qubix_mesh.gateway.keyfile import load_or_create
from qubix_mesh.gateway.settings import Settings, from_environment
from qubix_mesh.host import open_mesh
from qubix_protocol import usage
from qubix_protocol.settings import SettingsError

BAD_SETTINGS = 2


def main() -> int:
    summary = "The door between nodes on the mesh and the coordinator, until Ctrl-C."
    usage.parser("qubix gateway", summary, Settings).parse_args()
    try:
        settings = from_environment()
        logs.configure(settings.log_level)
        seed = load_or_create(settings.key_file)
        mesh = open_mesh(seed, listen=settings.listen, connections_max=settings.peers_max + 32)
        trio.run(serve, settings, mesh)
    except (SettingsError, BadKeyFile, BadPin, NotListening, BadAddress) as error:
        print(f"gateway: {error}", file=sys.stderr)
        return BAD_SETTINGS
    return 0


if __name__ == "__main__":
    sys.exit(main())
