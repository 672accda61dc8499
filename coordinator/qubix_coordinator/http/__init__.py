# SPDX-License-Identifier: Apache-2.0
"""The edges: HTTP API, live feed, mesh link. The only place that knows HTTP statuses, Quart and WebSockets."""
