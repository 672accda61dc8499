# SPDX-License-Identifier: Apache-2.0
"""The network's HTTP API: `/live/v1` (what is now) and `/query/v1` (the archive)."""
