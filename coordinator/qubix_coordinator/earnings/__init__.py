# SPDX-License-Identifier: Apache-2.0
"""What providers earned, out of the ledger, and by which work."""
