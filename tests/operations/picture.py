"""Draws the overview dashboard's panels from a real run: `.venv/bin/python tests/operations/picture.py`.

Starts a suite with the quickstart's model under a real Prometheus, loads it for two minutes (no lens decoder at first, then one, then
three), asks Prometheus for the expressions of deploy/grafana/dashboards/overview.json and draws them with matplotlib into
deploy/grafana/overview.png. It is what the dashboard would show, not a screenshot of Grafana.
"""

import concurrent.futures
import json
import pathlib
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "deploy/local"), str(ROOT / "tests/operations")]

import matplotlib  # noqa: E402
import sextant  # noqa: E402
from cluster import DEFAULT_MODEL, Cluster  # noqa: E402
from prometheus import Prometheus  # noqa: E402

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402
from PIL import Image  # noqa: E402

PORT = 25500
PICTURE = ROOT / "deploy/grafana/overview.png"
# Seconds from the start, and lens decoders from then on.
DECODERS = ((0, 0), (40, 1), (75, 3))
END_S = 120
CALLERS = 5
PROMPTS = ("The capital of France is", "Once upon a time, in a village by the sea, there lived", "A list of prime numbers:", "Dear editor,")
# Readable on a light and on a dark page.
INK = "#808488"
COLOURS = ("#3b82c4", "#e08a3c", "#4aa37a", "#b5629b", "#c9a227", "#7a7fd6", "#d2605a")
SCALES = {"s": (1, "s"), "short": (1, ""), "reqps": (1, "/s"), "percentunit": (100, "%"), "bytes": (2**-20, "MiB"), "Bps": (2**-20, "MiB/s")}


def load(address: str, stop: threading.Event) -> None:
    """Generates again and again, every second time with a lens."""
    with sextant.Client(address) as client, concurrent.futures.ThreadPoolExecutor(CALLERS) as pool:

        def caller(index: int) -> None:
            turn = index
            while not stop.is_set():
                lens = sextant.Lens() if turn % 2 else None
                try:
                    client.generate(
                        PROMPTS[turn % len(PROMPTS)], max_new_tokens=24, ignore_eos=True, lens=lens, lens_wait=20 if lens else None
                    ).wait()
                except sextant.SextantError as error:
                    print(f"  {error}")
                turn += 1

        list(pool.map(caller, range(CALLERS)))


def legend(template: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        template = template.replace("{{" + name + "}}", value)
    return template


def draw_panel(axes, panel: dict, prometheus: Prometheus) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    scale, unit = SCALES[defaults["unit"]]
    drawn = []
    for target in panel["targets"]:
        expression = target["expr"].replace("$__rate_interval", "10s").replace("$job", ".*")
        for series in prometheus.range(expression):
            points = [(at - prometheus.started, float(value) * scale) for at, value in series["values"]]
            points = [p for p in points if p[1] == p[1]]
            if points:
                drawn.append((legend(target["legendFormat"], series["metric"]), *zip(*points, strict=True)))
    for colour, (name, x, y) in zip(COLOURS * 3, sorted(drawn, key=lambda d: -d[2][-1]), strict=False):
        axes.plot(x, y, color=colour, linewidth=1.1, label=name)
    axes.set_title(f"{panel['title']}{f', {unit}' if unit else ''}", fontsize=9, color=INK, loc="left")
    # Room above the lines for the legend.
    axes.set_ylim(0, 1.3 * (max((max(y) for _, _, y in drawn), default=0) or 1))
    axes.set_xlim(0, END_S)
    axes.tick_params(colors=INK, labelsize=7)
    axes.grid(color=INK, alpha=0.25, linewidth=0.5)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
    if 1 < len(drawn) <= 7:
        axes.legend(fontsize=6, frameon=False, labelcolor=INK, loc="upper left", ncols=2 if len(drawn) > 3 else 1)


def draw(prometheus: Prometheus) -> None:
    dashboard = json.loads((ROOT / "deploy/grafana/dashboards/overview.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] == "timeseries"]
    rows = -(-len(panels) // 3)
    figure, grid = pyplot.subplots(rows, 3, figsize=(12, 2.1 * rows), layout="constrained")
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        draw_panel(axes, panel, prometheus)
    figure.savefig(PICTURE, dpi=100, transparent=True)
    # Few colours: a palette makes the file a third.
    with Image.open(PICTURE) as image:
        image.quantize(96, method=Image.Quantize.FASTOCTREE).save(PICTURE, optimize=True)
    print(f"{PICTURE}: {PICTURE.stat().st_size >> 10} KiB")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        cluster, prometheus = Cluster(folder / "cluster", port=PORT), None
        stop = threading.Event()
        try:
            cluster.up(DEFAULT_MODEL, 2, 0, "cpu", "bfloat16", say=print)
            prometheus = Prometheus(folder / "prometheus", folder / "cluster/targets.json", PORT + 2000, interval="1s")
            loader = threading.Thread(target=load, args=(cluster.address, stop))
            loader.start()
            for at, count in DECODERS:
                time.sleep(max(0.0, prometheus.started + at - time.time()))
                cluster.scale(count)
                print(f"  {at} s: {count} lens decoders")
            time.sleep(max(0.0, prometheus.started + END_S - time.time()))
            draw(prometheus)
        finally:
            stop.set()
            if prometheus is not None:
                loader.join()
                prometheus.stop()
            cluster.down()


if __name__ == "__main__":
    main()
