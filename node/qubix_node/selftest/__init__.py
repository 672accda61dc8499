# SPDX-License-Identifier: Apache-2.0
"""The node's look at its own machine: one module for each check, all judging in `rules`."""
