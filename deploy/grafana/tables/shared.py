"""Panels that stand on several dashboards."""

from tables.panel import Panel, quantiles, service_of

READY = Panel(
    "Ready",
    "What /readyz of every process says, by service: how many are ready.",
    "short",
    ((f"sum by (service) ({service_of('sextant_ready{J}')})", "{{service}}"),),
    kind="stat",
    width=12,
)
TOKENS = Panel(
    "Tokens",
    "Prompt tokens admitted and tokens sent to clients, each second.",
    "short",
    (("sum(rate(sextant_gateway_generated_tokens_total{J}[R]))", "generated"), ("sum(rate(sextant_gateway_prompt_tokens_total{J}[R]))", "prompt")),
)
FIRST_TOKEN = Panel(
    "Time to first token",
    "From the start of a Generate call to its first token, as its client sees it.",
    "s",
    quantiles("sextant_gateway_time_to_first_token_seconds"),
)
INTER_TOKEN = Panel("Inter-token latency", "From one token of a call to its next.", "s", quantiles("sextant_gateway_inter_token_latency_seconds"))
SEQUENCES = Panel(
    "Sequences",
    "What the workers hold: running, waiting for room, and done but with rows on their way.",
    "short",
    (
        ("sum(sextant_worker_running_sequences{J})", "running"),
        ("sum(sextant_worker_waiting_sequences{J})", "waiting"),
        ("sum(sextant_worker_sealing_sequences{J})", "sealing"),
        ("sum(sextant_worker_capture_waiting_sequences{J})", "starved of credit"),
    ),
)
KV = Panel(
    "KV cache",
    "Share of the KV blocks that sequences hold. Near 1 with requests waiting: more engines, or more --kv_cache_mb.",
    "percentunit",
    (("sextant_worker_kv_cache_usage_ratio{J}", "{{instance}}"),),
    maximum=1,
)
BACKLOG = Panel(
    "Rows for the lens",
    "Rows that wait for a lens decoder, and rows that one holds. Decoders are scaled on the first.",
    "short",
    (("sum(sextant_capture_waiting_rows{J})", "waiting"), ("sum(sextant_capture_leased_rows{J})", "leased")),
    stack=True,
)
BACKLOG_AGE = Panel(
    "Age of the oldest row",
    "How long the oldest row has waited for a lens decoder.",
    "s",
    (("max(sextant_capture_oldest_waiting_seconds{J})", "oldest"),),
)
ROWS = Panel(
    "Rows decoded",
    "Rows projected through final norm and head, each second.",
    "short",
    (("sum(rate(sextant_capture_decoded_rows_total{J}[R]))", "rows/s"),),
)
DECODERS = Panel(
    "Lens decoders",
    "Streams of lens decoders that the capture service has, and how busy they are together.",
    "short",
    (("sum(sextant_capture_decoders{J})", "connected"), ("sum(rate(sextant_lens_busy_seconds_total{J}[R]))", "busy")),
)
