# SPDX-License-Identifier: Apache-2.0
"""What a node's hardware can do: its own word (self-tests), and what the coordinator has tried (trials)."""
