# SPDX-License-Identifier: Apache-2.0
"""Samples of devices: kept for a while, the newest shown on the device's listing."""
