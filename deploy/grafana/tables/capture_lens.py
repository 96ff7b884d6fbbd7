"""The panels of one dashboard: from recorded rows to readings."""

from tables.panel import Dashboard, Panel, quantiles
from tables.shared import BACKLOG, BACKLOG_AGE, ROWS

CAPTURE_LENS = Dashboard(
    "sextant-capture-lens",
    "Sextant / Capture and lens",
    "From recorded rows to readings: backlog, credit, leases, decoders, disk.",
    (
        (
            "Backlog",
            (
                BACKLOG,
                BACKLOG_AGE,
                Panel(
                    "Delay of readings",
                    "From a position's arrival to its readings, as a heat map.",
                    "s",
                    (("sum by (le) (increase(sextant_capture_reading_delay_seconds_bucket{J}[R]))", "{{le}}"),),
                    kind="heatmap",
                ),
                ROWS,
                Panel(
                    "Positions",
                    "Positions whose readings came in, each second, and positions given up.",
                    "short",
                    (
                        ("sum(rate(sextant_capture_decoded_positions_total{J}[R]))", "decoded"),
                        ("sum(rate(sextant_capture_failed_positions_total{J}[R]))", "failed"),
                    ),
                ),
                Panel(
                    "Readings to clients",
                    "Positions whose readings were sent on, each second, and those missing when a call ended.",
                    "short",
                    (
                        ("sum(rate(sextant_gateway_readings_total{J}[R]))", "sent"),
                        ("sum(rate(sextant_gateway_readings_missing_total{J}[R]))", "missing"),
                    ),
                ),
            ),
        ),
        (
            "Rows coming in",
            (
                Panel(
                    "Received",
                    "Bytes of rows received, each second.",
                    "Bps",
                    (("sum(rate(sextant_capture_received_bytes_total{J}[R]))", "received"),),
                ),
                Panel(
                    "Chunks",
                    "Chunks received, each second, by what became of them. Refused ones end their capture.",
                    "short",
                    (("sum by (result) (rate(sextant_capture_chunks_total{J}[R]))", "{{result}}"),),
                ),
                Panel(
                    "Streams",
                    "Ranks, decoders and readers connected.",
                    "short",
                    (
                        ("sum(sextant_capture_rank_streams{J})", "ranks"),
                        ("sum(sextant_capture_decoders{J})", "decoders"),
                        ("sum(sextant_capture_followers{J})", "readers"),
                    ),
                ),
            ),
        ),
        (
            "Memory and disk",
            (
                Panel(
                    "Rows in memory",
                    "Bytes of transient rows held, granted as credit, and allowed.",
                    "bytes",
                    (
                        ("sum(sextant_capture_held_bytes{J})", "held"),
                        ("sum(sextant_capture_credit_outstanding_bytes{J})", "granted"),
                        ("sum(sextant_capture_budget_bytes{J})", "budget"),
                    ),
                ),
                Panel(
                    "Readings in memory",
                    "Bytes reserved for readings of open captures.",
                    "bytes",
                    (("sum(sextant_capture_readings_reserved_bytes{J})", "reserved"),),
                ),
                Panel(
                    "Disk for kept captures",
                    "Bytes reserved, and allowed.",
                    "bytes",
                    (("sum(sextant_capture_disk_reserved_bytes{J})", "reserved"), ("sum(sextant_capture_disk_budget_bytes{J})", "budget")),
                ),
                Panel(
                    "Spooled",
                    "Bytes written for kept captures, each second.",
                    "Bps",
                    (("sum(rate(sextant_capture_spooled_bytes_total{J}[R]))", "written"),),
                ),
            ),
        ),
        (
            "Captures",
            (
                Panel(
                    "Captures held",
                    "Captures by state; complete and incomplete ones are kept until they expire.",
                    "short",
                    (("sum by (state) (sextant_capture_captures{J})", "{{state}}"),),
                    stack=True,
                ),
                Panel(
                    "Captures opened",
                    "Captures asked for, each second, opened or refused.",
                    "short",
                    (("sum by (result) (rate(sextant_capture_opens_total{J}[R]))", "{{result}}"),),
                ),
                Panel(
                    "Captures ended",
                    "Captures that were complete, and captures cut short, each second.",
                    "short",
                    (("sum by (result) (rate(sextant_capture_ended_total{J}[R]))", "{{result}}"),),
                ),
                Panel(
                    "Unreadable",
                    "Kept captures found damaged at the start.",
                    "short",
                    (("sum(sextant_capture_unreadable_captures_total{J})", "unreadable"),),
                    kind="stat",
                ),
            ),
        ),
        (
            "Leases",
            (
                Panel("Leases held", "Leases that decoders hold.", "short", (("sum(sextant_capture_leases{J})", "leases"),)),
                Panel(
                    "Leases",
                    "Leases made each second, and those that ended without all results.",
                    "short",
                    (
                        ("sum(rate(sextant_capture_leases_total{J}[R]))", "made"),
                        ("sum(rate(sextant_capture_leases_expired_total{J}[R]))", "expired"),
                        ("sum by (reason) (rate(sextant_capture_leases_returned_total{J}[R]))", "{{reason}}"),
                        ("sum(rate(sextant_capture_late_results_total{J}[R]))", "late results"),
                    ),
                ),
                Panel(
                    "Lease latency",
                    "From the arrival of a lease's rows at a decoder to its last reading.",
                    "s",
                    quantiles("sextant_lens_lease_seconds"),
                ),
            ),
        ),
        (
            "Lens decoders",
            (
                Panel(
                    "Busy",
                    "Share of its time that each decoder spends decoding. Above 0.8 for long: add decoders.",
                    "percentunit",
                    (("rate(sextant_lens_busy_seconds_total{J}[R]) / sextant_lens_streams{J}", "{{instance}}"),),
                    maximum=1,
                ),
                Panel("Batch time", "Time to decode one batch.", "s", quantiles("sextant_lens_decode_seconds")),
                Panel(
                    "Rows of a batch",
                    "Rows projected together; small batches waste the head's weights.",
                    "short",
                    quantiles("sextant_lens_batch_rows"),
                ),
                Panel(
                    "Rows by decoder",
                    "Rows and positions each decoder projects, each second.",
                    "short",
                    (
                        ("rate(sextant_lens_rows_total{J}[R])", "{{instance}} rows"),
                        ("rate(sextant_lens_positions_total{J}[R])", "{{instance}} positions"),
                    ),
                ),
                Panel(
                    "Leases by result",
                    "Leases that decoders finished, gave back or could not decode, each second.",
                    "short",
                    (("sum by (result) (rate(sextant_lens_leases_total{J}[R]))", "{{result}}"),),
                ),
                Panel(
                    "Connections",
                    "Streams that stand, and streams that failed each second.",
                    "short",
                    (
                        ("sum(sextant_lens_connected_streams{J})", "connected"),
                        ("sum(rate(sextant_lens_connection_failures_total{J}[R]))", "failures/s"),
                    ),
                ),
                Panel("Heads", "With what each decoder decodes.", "short", (("sextant_lens_info{J}", ""),), kind="table", width=24),
            ),
        ),
    ),
)
