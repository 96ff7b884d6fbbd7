"""The panels of one dashboard: the suite at a glance."""

from tables.panel import Dashboard, Panel, quantiles, service_of
from tables.shared import BACKLOG, BACKLOG_AGE, DECODERS, FIRST_TOKEN, INTER_TOKEN, KV, READY, ROWS, SEQUENCES, TOKENS

OVERVIEW = Dashboard(
    "sextant-overview",
    "Sextant / Overview",
    "The suite at a glance: what users feel, and what limits it.",
    (
        (
            "Health",
            (
                READY,
                Panel(
                    "Firing alerts",
                    "Alerts of deploy/prometheus/rules that fire now.",
                    "short",
                    (('count(ALERTS{alertname=~"Sextant.*", alertstate="firing"}) or vector(0)', "firing"),),
                    kind="stat",
                    width=4,
                ),
                Panel(
                    "Errors of the suite",
                    "Share of Generate calls that ended INTERNAL, UNAVAILABLE, DATA_LOSS or UNKNOWN, over five minutes.",
                    "percentunit",
                    (("max(sextant:generate_error_ratio:rate5m{J})", "errors"),),
                    kind="stat",
                    width=4,
                ),
                Panel(
                    "Refused",
                    "Share of Generate calls that were told to come back later, over five minutes.",
                    "percentunit",
                    (("max(sextant:generate_refused_ratio:rate5m{J})", "refused"),),
                    kind="stat",
                    width=4,
                ),
            ),
        ),
        (
            "What users feel",
            (
                Panel(
                    "Generate calls",
                    "Calls that ended, each second, by status code.",
                    "reqps",
                    (('sum by (code) (rate(sextant_gateway_requests_total{J, method="Generate"}[R]))', "{{code}}"),),
                    stack=True,
                ),
                FIRST_TOKEN,
                INTER_TOKEN,
                TOKENS,
                Panel(
                    "Calls in flight",
                    "Calls under way at the gateways, and how many may stream at a time.",
                    "short",
                    (
                        ("sum(sextant_gateway_requests_in_flight{J})", "calls"),
                        ("sum(sextant_gateway_streams_in_flight{J})", "streams"),
                        ("sum(sextant_gateway_streams_limit{J})", "limit"),
                    ),
                ),
                Panel(
                    "Delay of readings",
                    "From a position's arrival at the capture service to its readings.",
                    "s",
                    quantiles("sextant_capture_reading_delay_seconds"),
                ),
            ),
        ),
        ("What limits it", (SEQUENCES, KV, BACKLOG, BACKLOG_AGE, ROWS, DECODERS)),
        (
            "Processes",
            (
                Panel(
                    "Processor time",
                    "Cores used, by service.",
                    "short",
                    ((f"sum by (service) ({service_of('rate(process_cpu_seconds_total{J}[R])')})", "{{service}}"),),
                    stack=True,
                ),
                Panel(
                    "Resident memory",
                    "Memory held, by service.",
                    "bytes",
                    ((f"sum by (service) ({service_of('process_resident_memory_bytes{J}')})", "{{service}}"),),
                    stack=True,
                ),
                Panel(
                    "Age of processes",
                    "Since when each process runs: a drop is a restart.",
                    "s",
                    ((f"time() - {service_of('process_start_time_seconds{J}')}", "{{service}} {{instance}}"),),
                ),
            ),
        ),
    ),
)
