"""What is shipped for Prometheus and Grafana, as far as it can be checked without a running suite."""

import json
import pathlib
import re
import subprocess
import sys

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
sys.path.insert(0, str(ROOT / "deploy/grafana"))

import generate  # noqa: E402
from tables import DASHBOARDS  # noqa: E402

ALERTS = [rule for group in yaml.safe_load((PROMETHEUS / "rules/alerts.yml").read_text())["groups"] for rule in group["rules"]]
RENDERED = {dashboard.uid: generate.render(dashboard) for dashboard in DASHBOARDS}


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def panels(dashboard: dict) -> list[dict]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def test_dashboards_are_what_the_table_makes() -> None:
    made = {f"{d.uid.removeprefix('sextant-')}.json": json.dumps(RENDERED[d.uid], indent=1) + "\n" for d in DASHBOARDS}
    committed = {path.name: path.read_text() for path in generate.FOLDER.iterdir()}
    assert committed == made, "run python3 deploy/grafana/generate.py"


@pytest.mark.parametrize("dashboard", RENDERED.values(), ids=RENDERED)
def test_dashboard_structure(dashboard: dict) -> None:
    variables = {v["name"] for v in dashboard["templating"]["list"]}
    assert variables == {"datasource", "job"} and dashboard["links"][0]["tags"] == dashboard["tags"] and dashboard["uid"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    cells = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not own & cells, f"{panel['title']} lies on another panel"
        cells |= own
    for panel in panels(dashboard):
        assert panel["description"].endswith(".") and panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"] and panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            used = set(re.findall(r"\$(\w+)", target["expr"]))
            assert used <= variables | {"__rate_interval"}, target["expr"]
            assert not re.search(r"\[\d", target["expr"]), f"a fixed window: {target['expr']}"


def test_expressions_parse(tmp_path: pathlib.Path) -> None:
    rules = [
        {"record": f"panel:{i}", "expr": target["expr"].replace("$__rate_interval", "1m").replace("$job", ".*")}
        for i, target in enumerate(t for d in RENDERED.values() for p in panels(d) for t in p["targets"])
    ]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in run("promtool", "check", "rules", str(path))


def test_configuration_and_rules() -> None:
    run("promtool", "check", "config", "deploy/prometheus/prometheus.yml")
    run("promtool", "check", "rules", "--lint-fatal", *map(str, sorted((PROMETHEUS / "rules").iterdir())))


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    counts: dict[str, set[int]] = {}
    for case in yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]:
        for test in case["promql_expr_test"]:
            name = re.search(r'alertname="(\w+)"', test["expr"])[1]
            counts.setdefault(name, set()).add(test["exp_samples"][0]["value"])
    assert counts == {rule["alert"]: {0, 1} for rule in ALERTS}
    assert "SUCCESS" in run("promtool", "test", "rules", "deploy/prometheus/alerts_test.yml")


def test_a_rule_that_is_wrong_fails_its_case(tmp_path: pathlib.Path) -> None:
    for name in ("rules", "alerts_test.yml"):
        subprocess.run(["cp", "-r", PROMETHEUS / name, tmp_path], check=True)
    alerts = tmp_path / "rules/alerts.yml"
    alerts.write_text(alerts.read_text().replace("oldest_waiting_seconds > 60", "oldest_waiting_seconds > 10"))
    done = subprocess.run(["promtool", "test", "rules", tmp_path / "alerts_test.yml"], capture_output=True, text=True)
    assert done.returncode != 0 and "SextantLensFallingBehind" in done.stdout + done.stderr


def test_every_alert_has_a_severity_and_a_section_of_the_runbook() -> None:
    sections = re.findall(r"^## (\w+)$", (PROMETHEUS / "RUNBOOK.md").read_text(), re.MULTILINE)
    assert sections == [rule["alert"] for rule in ALERTS]
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("critical", "warning") and rule["annotations"].keys() == {"summary", "description", "runbook"}
        assert rule["annotations"]["runbook"] == f"deploy/prometheus/RUNBOOK.md#{rule['alert'].lower()}"


def test_names_in_rules_and_panels_are_documented() -> None:
    documented = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "services/README.md").read_text(), re.MULTILINE))
    rules = [
        rule
        for name in ("recording", "alerts")
        for group in yaml.safe_load((PROMETHEUS / f"rules/{name}.yml").read_text())["groups"]
        for rule in group["rules"]
    ]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    expressions = [rule["expr"] for rule in rules] + [t["expr"] for d in RENDERED.values() for p in panels(d) for t in p["targets"]]
    expressions += re.findall(r"`([^`]+)`", (PROMETHEUS / "RUNBOOK.md").read_text())
    for name in set(re.findall(r"\b(?:sextant|grpc_server|process)[_:][a-z0-9_:]+\b", "\n".join(expressions))):
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        assert {name, base} & documented or name in recorded, f"{name} is in no table of metrics"
