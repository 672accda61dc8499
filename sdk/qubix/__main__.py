# SPDX-License-Identifier: Apache-2.0
"""`python -m qubix` is the `qubix` command."""

from qubix.cli import main

if __name__ == "__main__":
    main()
