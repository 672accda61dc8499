# SPDX-License-Identifier: Apache-2.0
"""Hypothesis draws the same examples each time, and no example fails by the time that a busy machine took for it."""

from hypothesis import HealthCheck, settings

settings.register_profile("qubix", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("qubix")
