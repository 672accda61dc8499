# SPDX-License-Identifier: Apache-2.0
"""The market in a terminal: `qubix tui`. A client like any other, on the SDK."""
