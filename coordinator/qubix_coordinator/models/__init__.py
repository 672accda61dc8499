# SPDX-License-Identifier: Apache-2.0
"""Consumers' models, described by a verifier process in its box before a job is made of them."""
