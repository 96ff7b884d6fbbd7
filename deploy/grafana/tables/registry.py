"""The panels of one dashboard: stored vectors."""

from tables.panel import Dashboard, Panel, service_of

REGISTRY = Dashboard(
    "sextant-registry",
    "Sextant / Registry",
    "Steering vectors: what is stored, and who reads it.",
    (
        (
            "Stored",
            (
                Panel("Vectors", "Names with a visible version.", "short", (("sum(sextant_registry_vectors{J})", "vectors"),), kind="stat", width=6),
                Panel("Versions", "Visible versions.", "short", (("sum(sextant_registry_versions{J})", "versions"),), kind="stat", width=6),
                Panel("Bytes", "Bytes of directions on disk.", "bytes", (("sum(sextant_registry_stored_bytes{J})", "stored"),), kind="stat", width=6),
                Panel(
                    "Damaged reads",
                    "Reads that found stored bytes not matching their digest.",
                    "short",
                    (("sum(sextant_registry_integrity_failures_total{J})", "damaged"),),
                    kind="stat",
                    width=6,
                ),
            ),
        ),
        (
            "Calls",
            (
                Panel(
                    "Calls by method",
                    "Calls answered each second.",
                    "reqps",
                    (("sum by (method) (rate(sextant_registry_requests_total{J}[R]))", "{{method}}"),),
                ),
                Panel(
                    "Calls by code",
                    "Calls answered each second, by status code.",
                    "reqps",
                    (("sum by (code) (rate(sextant_registry_requests_total{J}[R]))", "{{code}}"),),
                ),
                Panel(
                    "Latency by method",
                    "99th percentile from a call's start to its status.",
                    "s",
                    (
                        (
                            'histogram_quantile(0.99, sum by (le, grpc_method) (rate(grpc_server_handling_seconds_bucket{J, grpc_service=~".*RegistryService"}[R])))',
                            "{{grpc_method}}",
                        ),
                    ),
                ),
                Panel(
                    "Bytes moved",
                    "Bytes of directions received and sent, each second.",
                    "Bps",
                    (
                        ("sum(rate(sextant_registry_received_bytes_total{J}[R]))", "received"),
                        ("sum(rate(sextant_registry_sent_bytes_total{J}[R]))", "sent"),
                    ),
                ),
                Panel(
                    "Messages",
                    "Messages received and sent, each second.",
                    "short",
                    (
                        ('sum(rate(grpc_server_msg_received_total{J, grpc_service=~".*RegistryService"}[R]))', "received"),
                        ('sum(rate(grpc_server_msg_sent_total{J, grpc_service=~".*RegistryService"}[R]))', "sent"),
                    ),
                ),
                Panel(
                    "Vectors cached by gateways",
                    "Bytes of directions that gateways keep.",
                    "bytes",
                    (("sum(sextant_gateway_vector_cache_bytes{J})", "cached"),),
                ),
            ),
        ),
        (
            "Process",
            (
                Panel(
                    "Open files",
                    "Share of the file descriptors in use, by service.",
                    "percentunit",
                    ((f"max by (service) ({service_of('process_open_fds{J} / process_max_fds{J}')})", "{{service}}"),),
                ),
                Panel("Threads", "Threads, by service.", "short", ((f"sum by (service) ({service_of('process_threads{J}')})", "{{service}}"),)),
                Panel(
                    "gRPC calls under way",
                    "Calls begun and not ended, by service.",
                    "short",
                    (
                        (
                            "sum by (grpc_service) (grpc_server_started_total{J}) - sum by (grpc_service) (grpc_server_handled_total{J})",
                            "{{grpc_service}}",
                        ),
                    ),
                ),
            ),
        ),
    ),
)
