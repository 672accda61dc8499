# SPDX-License-Identifier: Apache-2.0
"""Spot checks: a part of unchecked work is run again by somebody unrelated (trust.md C5)."""
