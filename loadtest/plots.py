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


def sweep(points: list[dict], path: pathlib.Path) -> None:
    """Goodput, answers and refusals against offered load, in parts of capacity, and what the answered requests felt."""
    figure, (rates, times) = pyplot.subplots(1, 2, figsize=(9, 3.6))
    points = sorted(points, key=lambda p: p["offered"] / p["capacity"])
    offered = [p["offered"] / p["capacity"] for p in points]
    for key, style in (("goodput", {"marker": "o"}), ("refused", {"marker": "x", "linestyle": "--"})):
        rates.plot(offered, [p[key] / p["capacity"] for p in points], label=key, **style)
    rates.axhline(0.9, color="grey", linewidth=0.8)
    rates.set_ylabel("requests / capacity")
    for key, label in (("first_token_p50", "time to first token, p50"), ("first_token_p90", "time to first token, p90"),
                       ("inter_token_p50", "inter-token latency, p50"), ("refusal_p50", "refusal as the client sees it, p50")):
        known = [(x, p[key]) for x, p in zip(offered, points) if p[key] is not None]
        times.plot([x for x, _ in known], [y for _, y in known], marker="o", markersize=3, label=label)
    times.set_yscale("log")
    times.set_ylabel("ms")
    for axes in (rates, times):
        axes.set_xlabel("offered load / capacity")
        axes.legend(fontsize=7)
    save(figure, path)


def memory(report: dict, path: pathlib.Path) -> None:
    """Resident memory of each process over time, and its heap at rest against the calls so far, from where the fit begins."""
    figure, (resident, heap) = pyplot.subplots(1, 2, figsize=(10, 4.2))
    for name, points in report["resident_mib"].items():
        (drawn,) = resident.plot([t / 60 for t, _ in points], [mib for _, mib in points], linewidth=1)
        line = report["fits"][name].get("heap")
        if line is None:
            continue
        kept = [(calls, amount) for calls, amount in report["at_rest"][name]["heap"] if calls >= line["first_call"]]
        heap.plot([calls for calls, _ in kept], [(amount - line["at_first"]) / 1024 for _, amount in kept], marker="o", markersize=2, linewidth=1,
                  color=drawn.get_color(), label=f"{name}: {line['per_call']:+.1f} ± {line['bound']:.1f} bytes a call")
    first, last = kept[0][0], kept[-1][0]
    heap.plot([first, last], [0, report["most_bytes_per_call"] * (last - first) / 1024], color="grey", linestyle="--", linewidth=0.8,
              label=f"{report['most_bytes_per_call']:.0f} bytes a call, the most allowed")
    resident.set_xlabel("minutes")
    resident.set_ylabel("resident memory, MiB")
    resident.set_yscale("log")
    heap.set_xlabel("calls")
    heap.set_ylabel("heap at rest, KiB from the first reading's")
    heap.margins(y=0.4)  # room for the legend
    heap.legend(fontsize=6, loc="upper left")
    save(figure, path)


def autoscale(report: dict, path: pathlib.Path) -> None:
    """The curves of backlog and lens decoders over time; a dotted line where a step of the load begins."""
    times, rows, alive = zip(*report["samples"], strict=True)
    figure, (backlog, decoders) = pyplot.subplots(2, 1, figsize=(9, 5), sharex=True, height_ratios=(3, 2))
    backlog.fill_between(times, [r / 1000 for r in rows], alpha=0.35, linewidth=0)
    backlog.plot(times, [r / 1000 for r in rows], linewidth=1)
    backlog.set_ylabel("rows waiting or leased, thousands")
    backlog.set_ylim(bottom=0)
    generations, positions, wrong = (sum(of(step) for step in report["steps"]) for of in (
        lambda step: step["generations"], lambda step: step["positions"], lambda step: len(step["wrong_generations"])))
    backlog.set_title(f"{positions:,} positions of {generations} generations: {'each read exactly once' if not wrong else f'{wrong} WRONG'}; "
                      f"{report['rows_per_decoder']:,} rows per decoder")
    decided, wanted = zip(*report["decisions"], strict=True)
    decoders.step([*decided, times[-1]], [*wanted, wanted[-1]], where="post", linewidth=1.2, label="wanted")
    decoders.step(times, alive, where="post", linewidth=1.2, color="black", label="running")
    decoders.set_ylabel("decoders")
    decoders.set_xlabel("seconds")
    decoders.set_yticks(range(report["most_decoders"] + 1))
    decoders.legend(loc="upper right")
    for step in report["steps"]:
        for axes in (backlog, decoders):
            axes.axvline(step["begin_s"], color="grey", linewidth=0.7, linestyle=":")
        backlog.annotate(f"{step['generations']} sent", (step["begin_s"], 1),
                         xycoords=("data", "axes fraction"), xytext=(3, -12), textcoords="offset points", fontsize=8)
    save(figure, path)
