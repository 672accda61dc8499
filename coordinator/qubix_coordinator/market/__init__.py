# SPDX-License-Identifier: Apache-2.0
"""Offers folded into listings, and the rule by which a job finds its provider."""
