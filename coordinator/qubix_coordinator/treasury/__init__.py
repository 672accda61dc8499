# SPDX-License-Identifier: Apache-2.0
"""The chain process: the only holder of keys to QU."""
