# SPDX-License-Identifier: Apache-2.0
"""These tests are about a real NVIDIA card: they are there where one is (see README.md)."""

from tests.kernels.card import missing

collect_ignore_glob = ["test_*.py"] if missing() else []
