# SPDX-License-Identifier: Apache-2.0
"""What this node offers to the market."""
