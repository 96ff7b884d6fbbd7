"""The table of metrics in services/README.md, made from what running services expose.

    deploy/local/up && .venv/bin/python tests/operations/metrics_table.py [--write] && deploy/local/down

prints it for the local cluster, which must have two ranks or more; --write puts it into the README.
"""

import dataclasses
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))

from exposition import families, scrape  # noqa: E402

README = ROOT / "services/README.md"
BEGIN, END = "<!-- metrics: made by tests/operations/metrics_table.py -->", "<!-- end of metrics -->"
TITLES = {
    "": "Every service",
    "grpc": "Every gRPC server",
    "gateway": "Gateway",
    "worker": "Shard worker",
    "capture": "Capture",
    "lens": "Lens decoder",
    "registry": "Steering registry",
}


@dataclasses.dataclass
class Metric:
    """One family as it is exposed."""

    name: str
    type: str
    help: str
    labels: set[str] = dataclasses.field(default_factory=set)


def parse(text: str) -> dict[str, Metric]:
    """The families of one exposition, by name."""
    return {name: Metric(name, family.type, family.documentation, {label for sample in family.samples for label in sample.labels} - {"le"})
            for name, family in families(text).items()}


def merge(expositions: list[str]) -> dict[str, Metric]:
    """The families of several expositions."""
    merged: dict[str, Metric] = {}
    for text in expositions:
        for name, metric in parse(text).items():
            merged.setdefault(name, metric).labels.update(metric.labels)
    return merged


def section(name: str) -> str:
    """The key into TITLES of a metric."""
    if name.startswith("grpc_server_"):
        return "grpc"
    word = name.removeprefix("sextant_").split("_")[0]
    if name == "sextant_model_info":
        return "worker"
    return word if name.startswith("sextant_") and word in TITLES else ""


def render(metrics: dict[str, Metric]) -> str:
    """The table in Markdown."""
    lines = []
    for key, title in TITLES.items():
        lines += ["", f"**{title}**", "", "| metric | type | labels | what |", "|---|---|---|---|"]
        for name in sorted(n for n in metrics if section(n) == key):
            metric = metrics[name]
            labels = ", ".join(f"`{label}`" for label in sorted(metric.labels))
            lines.append(f"| `{name}` | {metric.type} | {labels} | {metric.help} |")
    return "\n".join(lines[1:])


def documented() -> str:
    """The table as the README has it."""
    return README.read_text().split(BEGIN)[1].split(END)[0].strip()


def main() -> None:
    sys.path.insert(0, str(ROOT / "deploy/local"))
    import cluster

    expositions = [scrape(port) for port in cluster.Cluster(ROOT / "build/local").http_ports()]
    if not expositions:
        sys.exit("no local cluster is running: deploy/local/up --ranks 2")
    table = render(merge(expositions))
    if "--write" in sys.argv[1:]:
        before, rest = README.read_text().split(BEGIN)
        README.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}")
    else:
        print(table)


if __name__ == "__main__":
    main()
