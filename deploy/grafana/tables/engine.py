"""The panels of one dashboard: gateway and shard workers."""

from tables.panel import Dashboard, Panel, quantiles
from tables.shared import FIRST_TOKEN, INTER_TOKEN, KV, SEQUENCES, TOKENS

ENGINE = Dashboard(
    "sextant-engine",
    "Sextant / Engine",
    "Gateway and shard workers: queue, batches, phases, KV cache, ring, groups.",
    (
        (
            "Model",
            (
                Panel(
                    "Models served",
                    "One line for each group: model, ranks, element type, digests.",
                    "short",
                    (("sextant_model_info{J}", ""),),
                    kind="table",
                    width=24,
                ),
            ),
        ),
        (
            "Requests",
            (
                Panel(
                    "Calls by method",
                    "Calls that ended at the gateways, each second.",
                    "reqps",
                    (("sum by (method) (rate(sextant_gateway_requests_total{J}[R])) > 0", "{{method}}"),),
                ),
                Panel(
                    "Errors by reason",
                    "Calls that ended with an error, each second, by reason.",
                    "reqps",
                    (("sum by (reason) (rate(sextant_gateway_errors_total{J}[R])) > 0", "{{reason}}"),),
                ),
                Panel("Time to refuse", "From a call's start to its RESOURCE_EXHAUSTED.", "s", quantiles("sextant_gateway_refusal_seconds")),
                FIRST_TOKEN,
                INTER_TOKEN,
                Panel(
                    "Length of Generate calls",
                    "How long Generate calls last, as a heat map.",
                    "s",
                    (("sum by (le) (increase(sextant_gateway_generate_duration_seconds_bucket{J}[R]))", "{{le}}"),),
                    kind="heatmap",
                ),
                Panel(
                    "Repeats",
                    "Generations begun again on another worker, each second.",
                    "reqps",
                    (("sum(rate(sextant_gateway_repeats_total{J}[R]))", "repeats"),),
                ),
                Panel(
                    "Peers",
                    "Peers of the gateways that answered the last probe, and how many there should be.",
                    "short",
                    (("sum by (peer) (sextant_gateway_peers_ready{J})", "{{peer}} ready"), ("sum by (peer) (sextant_gateway_peers{J})", "{{peer}}")),
                ),
                TOKENS,
            ),
        ),
        (
            "Where a request's time goes",
            (
                Panel("Queue", "Until a request holds a slot and KV blocks.", "s", quantiles("sextant_worker_queue_seconds")),
                Panel("Prefill", "From its KV blocks to its first token.", "s", quantiles("sextant_worker_prefill_seconds")),
                Panel("Decode", "From its first token to its last.", "s", quantiles("sextant_worker_decode_seconds")),
            ),
        ),
        (
            "Steps",
            (
                Panel(
                    "Where the leader's time goes",
                    "Share of the leader's loop by phase; wait is idle, or starved of credit.",
                    "percentunit",
                    (("sum by (phase) (rate(sextant_worker_phase_seconds_total{J}[R])) / scalar(count(sextant_worker_kv_blocks{J}))", "{{phase}}"),),
                    stack=True,
                    maximum=1,
                ),
                Panel("Step time", "From a step's plan to its tokens.", "s", quantiles("sextant_worker_step_seconds")),
                Panel(
                    "Steps", "Steps each second.", "short", (("sum by (instance) (rate(sextant_worker_step_seconds_count{J}[R]))", "{{instance}}"),)
                ),
                Panel(
                    "Rows of a step",
                    "Batch size in rows: prompt positions and one for each decoding sequence.",
                    "short",
                    quantiles("sextant_worker_batch_rows"),
                ),
                Panel("Sequences of a step", "Batch size in sequences.", "short", quantiles("sextant_worker_batch_sequences")),
                Panel(
                    "Tokens of the engine",
                    "Prompt tokens run and tokens sampled, each second.",
                    "short",
                    (
                        ("sum(rate(sextant_worker_prompt_tokens_total{J}[R]))", "prompt"),
                        ("sum(rate(sextant_worker_generated_tokens_total{J}[R]))", "generated"),
                    ),
                ),
            ),
        ),
        (
            "Room",
            (
                SEQUENCES,
                KV,
                Panel(
                    "KV blocks",
                    "KV blocks held, and in all.",
                    "short",
                    (("sum(sextant_worker_kv_blocks_used{J})", "held"), ("sum(sextant_worker_kv_blocks{J})", "in all")),
                ),
            ),
        ),
        (
            "Recording",
            (
                Panel(
                    "Recorded",
                    "Bytes of rows recorded, each second, and sent to the capture service.",
                    "Bps",
                    (
                        ("sum(rate(sextant_worker_recorded_bytes_total{J}[R]))", "recorded"),
                        ("sum(rate(sextant_worker_capture_sent_bytes_total{J}[R]))", "sent"),
                    ),
                ),
                Panel(
                    "Positions and chunks",
                    "Positions recorded and chunks sent, each second.",
                    "short",
                    (
                        ("sum(rate(sextant_worker_recorded_positions_total{J}[R]))", "positions"),
                        ("sum(rate(sextant_worker_capture_sent_chunks_total{J}[R]))", "chunks"),
                    ),
                ),
                Panel(
                    "Ring",
                    "Share of each rank's ring that holds rows not yet acknowledged.",
                    "percentunit",
                    (("sextant_worker_ring_used_bytes{J} / (sextant_worker_ring_bytes{J} > 0)", "{{instance}}"),),
                    maximum=1,
                ),
                Panel(
                    "Streams to capture",
                    "Whether each rank's stream to the capture service stands.",
                    "short",
                    (("sextant_worker_capture_connected{J}", "{{instance}}"),),
                ),
                Panel(
                    "Reconnects",
                    "Streams to the capture service that were opened, by rank.",
                    "short",
                    (("sextant_worker_capture_connections_total{J}", "{{instance}}"),),
                ),
            ),
        ),
        (
            "Groups",
            (
                Panel(
                    "Restarts",
                    "How often each group was started again after a rank was lost.",
                    "short",
                    (("sextant_worker_group_restarts_total{J} and on (instance) sextant_worker_rank{J} == 0", "{{instance}}"),),
                ),
                Panel(
                    "Age of the epoch",
                    "How long each group's present life lasts.",
                    "s",
                    (("time() - max by (instance) (sextant_worker_epoch{J}) / 1000", "{{instance}}"),),
                ),
                Panel(
                    "gRPC calls",
                    "Calls that ended at the workers, each second, by code.",
                    "reqps",
                    (
                        (
                            'sum by (grpc_method, grpc_code) (rate(grpc_server_handled_total{J, grpc_service=~".*WorkerService"}[R]))',
                            "{{grpc_method}} {{grpc_code}}",
                        ),
                    ),
                ),
            ),
        ),
    ),
)
