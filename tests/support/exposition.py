"""Reads what a process serves at /metrics, for load tests and for tests."""

import urllib.request

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


def scrape(port: int, host: str = "127.0.0.1") -> str:
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=10) as answer:
        return answer.read().decode()


def families(text: str) -> dict[str, Metric]:
    """The families of one exposition, by the names under which they are exposed."""
    # The parser drops the end of a counter's name.
    return {family.name + ("_total" if family.type == "counter" else ""): family for family in text_string_to_metric_families(text)}


def _samples(text: str, name: str) -> list[Sample]:
    """The samples of that name. Only their lines are parsed, since the parser is slow."""
    lines = "".join(f"{line}\n" for line in text.splitlines() if line.startswith(name))
    return [sample for family in text_string_to_metric_families(lines) for sample in family.samples if sample.name == name]


def value(text: str, name: str, **labels: str) -> float:
    """The sum of the samples of that name with these labels among theirs; 0 without any."""
    return sum(sample.value for sample in _samples(text, name) if labels.items() <= sample.labels.items())


def known(text: str, name: str) -> float:
    """The sum of the samples of that name. LookupError without any: it may have been renamed, and 0 would say that all is well."""
    if not (found := _samples(text, name)):
        raise LookupError(f"no {name} is exposed")
    return sum(sample.value for sample in found)


def buckets(text: str, name: str) -> dict[float, float]:
    """The cumulative counts of a histogram without labels, by upper bound."""
    return {float(sample.labels["le"]): sample.value for sample in _samples(text, f"{name}_bucket")}
