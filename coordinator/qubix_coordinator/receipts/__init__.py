# SPDX-License-Identifier: Apache-2.0
"""Chains of signed entries, kept for ever: what a receipt is made of."""
