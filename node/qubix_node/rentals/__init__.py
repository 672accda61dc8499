# SPDX-License-Identifier: Apache-2.0
"""Devices of this node that are rented to one consumer for a time."""
