"""What a panel and a dashboard of the table are."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Panel:
    """One panel. `queries` are (expression, legend)."""

    title: str
    description: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"  # or stat, heatmap, table
    width: int = 8  # of 24
    stack: bool = False
    maximum: float | None = None


@dataclasses.dataclass(frozen=True)
class Dashboard:
    """One dashboard: rows of panels, each row with a title."""

    uid: str
    title: str
    description: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]


def quantiles(metric: str, by: str = "") -> tuple[tuple[str, str], ...]:
    """p50, p90 and p99 of a histogram."""
    group = f"le, {by}" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    return tuple((f"histogram_quantile({q}, sum by ({group}) (rate({metric}_bucket{{J}}[R])))", f"{legend}p{q * 100:.0f}") for q in (0.5, 0.9, 0.99))


def service_of(expression: str) -> str:
    """The expression with the name of its service, for metrics that all services have."""
    return f"{expression} * on (instance) group_left (service) sextant_build_info{{J}}"
