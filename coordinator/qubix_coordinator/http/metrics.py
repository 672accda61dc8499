# SPDX-License-Identifier: Apache-2.0
"""What Prometheus reads at /metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, Histogram, PlatformCollector
from prometheus_client import ProcessCollector as Process


class Metrics:
    """One registry per application, so that several can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (GCCollector, PlatformCollector, Process):
            collector(registry=self.registry)
        self.refused = Counter(
            "qubix_messages_refused", "Statements from the mesh that were refused.", ["code"], registry=self.registry
        )
        self.received = Counter(
            "qubix_messages_received", "Statements from the mesh that were accepted.", ["type"], registry=self.registry
        )
        self.samples = Counter(
            "qubix_samples", "Readings that nodes told, by what became of them.", ["fate"], registry=self.registry
        )
        self.samples_waiting = Gauge(
            "qubix_samples_waiting", "Readings that wait to be written; the oldest give way.", registry=self.registry
        )
        self.requests = Counter(
            "qubix_http_requests",
            "Requests by route, method and status.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "qubix_http_seconds",
            "Seconds until the answer's first byte.",
            ["route"],
            registry=self.registry,
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
        )
        self.nodes = Gauge("qubix_nodes_connected", "Nodes with a live session.", registry=self.registry)
        self.gateways = Gauge("qubix_gateways_connected", "Gateways with an open link.", registry=self.registry)
        self.verifiers = Gauge(
            "qubix_verifiers_heard", "Verifier processes that were heard in the last seconds.", registry=self.registry
        )
        self.chain_ok = Gauge(
            "qubix_chain_ok",
            "1 while the Qubic network answers and deposits are read; 0 while not, or while nobody looks.",
            registry=self.registry,
        )
        self.chain_lag = Gauge(
            "qubix_chain_lag_ticks", "Ticks by which deposits are read behind the network.", registry=self.registry
        )
        self.audit_at = Gauge(
            "qubix_audit_timestamp_seconds", "When the newest audit was made; NaN for never.", registry=self.registry
        )
        self.audit_violations = Gauge(
            "qubix_audit_violations", "Findings of the newest audit, by check.", ["check"], registry=self.registry
        )
        self.audit_unknown = Gauge(
            "qubix_audit_unknown", "What the newest audit could not tell, by check.", ["check"], registry=self.registry
        )
        self.followers = Gauge("qubix_live_clients", "Open live feeds.", registry=self.registry)
