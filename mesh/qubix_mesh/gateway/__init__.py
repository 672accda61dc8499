# SPDX-License-Identifier: Apache-2.0
"""The libp2p face of the network, a process of its own: nodes dial in, one WebSocket leads to the coordinator.

It keeps no truth and can forge nothing: every statement it passes on is signed end to end.
"""
