# SPDX-License-Identifier: Apache-2.0
"""The node's part in trials of its hardware."""
