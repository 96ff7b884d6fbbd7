"""Writes prometheus-rule.yaml from the rules in deploy/prometheus/rules, which are the only place to change them.

python k8s/overlays/monitoring/generate.py
"""

import pathlib

import yaml

HERE = pathlib.Path(__file__).resolve().parent
RULES = HERE.parents[2] / "deploy/prometheus/rules"
HEADING = "# Made by generate.py from deploy/prometheus/rules: change it there.\n"


def prometheus_rule() -> str:
    """All groups of all files as one PrometheusRule."""
    groups = [group for path in sorted(RULES.glob("*.yml")) for group in yaml.safe_load(path.read_text())["groups"]]
    manifest = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "sextant"},
        "spec": {"groups": groups},
    }
    return HEADING + yaml.safe_dump(manifest, sort_keys=False, width=120, allow_unicode=True)


if __name__ == "__main__":
    (HERE / "prometheus-rule.yaml").write_text(prometheus_rule())
