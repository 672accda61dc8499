# SPDX-License-Identifier: Apache-2.0
"""Devices: what they are, and what they measure of themselves."""
