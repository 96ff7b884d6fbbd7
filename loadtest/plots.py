"""Plots of load test reports, as SVG."""

import pathlib

import matplotlib

matplotlib.use("Agg")
matplotlib.rcParams.update({"svg.hashsalt": "sextant", "svg.fonttype": "none", "font.size": 9, "axes.grid": True,
                            "grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False})

from matplotlib import pyplot  # noqa: E402


def save(figure, path: pathlib.Path) -> None:
    """Writes the picture without a date in it, so that equal data make equal files."""
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def latencies(report: dict, path: pathlib.Path) -> None:
    """Time to first token, inter-token and request latency at the percentiles that their counts bear."""
    names = ("p25", "p50", "p75", "p90", "p95", "p99", "p99.9")
    figure, axes = pyplot.subplots(figsize=(6, 3.4))
    for key, label in (("time_to_first_token", "time to first token"), ("inter_token_latency", "inter-token latency"),
                       ("request_latency", "request latency")):
        metric = report["genai_perf"][key]
        known = [name for name in names if metric.get(name) is not None]
        axes.plot(known, [metric[name] for name in known], marker="o", label=f"{label} (n = {metric['count']})")
    axes.set_yscale("log")
    axes.set_ylabel("ms")
    axes.set_title(f"{report['scenario']}: {report['ghz']['options']['rps']:g} requests/s, {report['model']}")
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    save(figure, path)
