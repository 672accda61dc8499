# SPDX-License-Identifier: Apache-2.0
"""QU on their way out to the chain."""
