"""Offers a suite from half of its capacity to five times of it, and checks that it goes on serving at its capacity.

Capacity is the goodput of a reference run, which offers half as much again as can be served: of the one before and the one after a point, the mean.
"""

import json
import math
import pathlib

import plots
from suite_load import BROKEN, GOOD, machine, run_load  # First: it says where others are.

import exposition

# Offered load, in parts of capacity. Each point stands between two references, so that a machine whose speed drifts meets both.
MULTIPLES = [0.5, 0.75, 2, 3, 4, 5]
# A reference offers so much of what the one before it answered: the engine is always full, and little is refused.
REFERENCE = 1.5
# What must hold of every point above 1.
LEAST_GOODPUT = 0.9
REFUSAL_S = 0.01
REFUSED_IN_TIME = 0.99
# Latency of answered requests over that of the references beside it, for it to count as kept.
MOST_LATENCY = 2.0


def refusals(cluster) -> tuple[float, float]:
    """How many calls the gateway has refused, and how many of them within REFUSAL_S of reading them."""
    gateway = next(p for p in cluster.processes if p.binary == "gateway")
    buckets = exposition.buckets(exposition.scrape(gateway.http), "sextant_gateway_refusal_seconds")
    return buckets[math.inf], buckets[REFUSAL_S]


def measure(cluster, scenario: pathlib.Path, out: pathlib.Path, name: str, rate: float, duration: float, seed: int) -> dict:
    before = refusals(cluster)
    code, report = run_load(cluster, scenario, out, name,
                            [f"--rate={rate}", f"--duration={duration}s", f"--warmup={duration / 4}s", "--retries=0", f"--seed={seed}"])
    after = refusals(cluster)
    genai, ghz = report["genai_perf"], report["ghz"]
    window = ghz["total"] / 1e9
    errors = ghz["errorDistribution"]
    return {
        "offered": ghz["count"] / window, "goodput": genai["request_goodput"]["avg"], "answered": genai["request_throughput"]["avg"],
        "refused": ghz["statusCodeDistribution"].get("RESOURCE_EXHAUSTED", 0) / window, "errors": errors,
        "first_token_p50": genai["time_to_first_token"]["p50"], "first_token_p90": genai["time_to_first_token"]["p90"],
        "inter_token_p50": genai["inter_token_latency"]["p50"], "inter_token_p90": genai["inter_token_latency"]["p90"],
        "refusal_p50": report["refusal"]["p50"], "refusals": after[0] - before[0], "refusals_in_time": after[1] - before[1],
        "generator_lag_p90": report["generator_lag"]["p90"], "ledger_good": code == GOOD, "machine": machine(),
    }


def table(points: list[dict]) -> str:
    lines = [f"{'offered':>9}{'x':>6}{'goodput':>9}{'x':>6}{'refused':>9}{'first token p50, p90':>24}{'inter-token p50, p90':>24}{f'refused in {REFUSAL_S * 1000:.0f} ms':>22}  ledger"]
    for p in points:
        pair = ["-" if p[k] is None else f"{p[k]:.0f}" for k in ("first_token_p50", "first_token_p90", "inter_token_p50", "inter_token_p90")]
        in_time = f"{p['refusals_in_time']:.0f} of {p['refusals']:.0f}"
        lines.append(f"{p['offered']:9.2f}{p['offered'] / p['capacity']:6.2f}{p['goodput']:9.2f}{p['goodput'] / p['capacity']:6.2f}{p['refused']:9.2f}"
                     f"{', '.join(pair[:2]) + ' ms':>24}{', '.join(pair[2:]) + ' ms':>24}{in_time:>22}  {'good' if p['ledger_good'] else 'BROKEN'}"
                     f"{'  reference' if p['reference'] else ''}")
    return "\n".join(lines)


def faults(points: list[dict]) -> list[str]:
    """What does not hold, one line each. The points are in the order in which they were measured."""
    wrong = [f"the ledger broke at {p['offered']:.2f} requests/s" for p in points if not p["ledger_good"]]
    for number, p in enumerate(points):
        times = p["offered"] / p["capacity"]
        if p["reference"] or times <= 1:
            continue
        if p["goodput"] < LEAST_GOODPUT * p["capacity"]:
            wrong.append(f"goodput is {p['goodput'] / p['capacity']:.2f} of capacity at {times:.2f} times of it")
        if others := set(p["errors"]) - {"RESOURCE_EXHAUSTED QUEUE_FULL", "RESOURCE_EXHAUSTED TOO_MANY_CALLS"}:
            wrong.append(f"errors other than refusals at {times:.2f} times of capacity: {sorted(others)}")
        beside = [points[n] for n in (number - 1, number + 1) if 0 <= n < len(points) and points[n]["reference"]]
        for key in ("first_token_p50", "inter_token_p50"):
            known = [other[key] for other in beside if other[key] is not None]
            if known and p[key] is not None and p[key] > MOST_LATENCY * max(known):
                wrong.append(f"{key} is {p[key]:.0f} ms at {times:.2f} times of capacity, {max(known):.0f} ms in the references beside it")
    total, in_time = sum(p["refusals"] for p in points), sum(p["refusals_in_time"] for p in points)
    if in_time < REFUSED_IN_TIME * total:
        wrong.append(f"only {in_time:.0f} of {total:.0f} refusals within {REFUSAL_S * 1000:.0f} ms")
    return wrong


def run(cluster, scenario: pathlib.Path, out: pathlib.Path, duration: float, guess: float, seed: int = 1, say=lambda text: None) -> int:
    """GOOD when all holds. `guess`: requests a second that are surely too many."""
    points: list[dict] = []

    def point(rate: float, reference: bool) -> dict:
        number = len(points)
        p = measure(cluster, scenario, out, f"point-{number}", rate, duration, seed + number) | {"reference": reference}
        say(f"  offered {p['offered']:.2f}/s: goodput {p['goodput']:.2f}/s, refused {p['refused']:.2f}/s{'  (reference)' if reference else ''}")
        return p

    answered = max(point(guess, False)["answered"], 0.1)
    points.append(point(REFERENCE * answered, True))
    for multiple in MULTIPLES:
        answered = max(points[-1]["answered"], 0.1)
        points.append(point(multiple * answered, False))
        points.append(point(REFERENCE * answered, True))
    for number, p in enumerate(points):
        beside = [points[n] for n in ([number] if p["reference"] else [number - 1, number + 1])]
        p["capacity"] = max(sum(other["goodput"] for other in beside) / len(beside), 1e-9)
    wrong = faults(points)
    say(table(points))
    for line in wrong:
        say(f"BROKEN: {line}")
    (out / "sweep.json").write_text(json.dumps({"scenario": scenario.stem, "points": points, "wrong": wrong}, indent=1) + "\n")
    plots.sweep(points, out / "sweep.svg")
    return BROKEN if wrong else GOOD
