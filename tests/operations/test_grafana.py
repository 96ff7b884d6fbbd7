"""What is shipped for Grafana, held to Grafana's own models and file formats, as far as that goes without its server."""

import json
import pathlib
import re
from collections.abc import Iterator

import pytest
import yaml
from grafana_foundation_sdk.cog import encoder, plugins
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import units

DEPLOY = pathlib.Path(__file__).resolve().parents[2] / "deploy"
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((DEPLOY / "grafana/dashboards").iterdir())}
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
# Read by Grafana, by the import page, the page of a variable and the Prometheus plugin, but in none of its models.
BEYOND_THE_MODELS = {"__requires", "definition", "titleFormat", "textFormat"}
UNITS = {value for name, value in vars(units).items() if not name.startswith("_") and isinstance(value, str)}
# Grafana's documentation of provisioning files; what is not here it ignores without a word.
DATASOURCE_KEYS = {"name", "uid", "type", "access", "orgId", "url", "user", "database", "basicAuth", "basicAuthUser", "withCredentials",
                   "isDefault", "jsonData", "secureJsonData", "version", "editable"}
PROVIDER_KEYS = {"name", "orgId", "folder", "folderUid", "type", "disableDeletion", "updateIntervalSeconds", "allowUiUpdates", "options"}

plugins.register_default_plugins()


def panels(dashboard: dict) -> list[dict]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def lost(given, kept, path: str = "") -> Iterator[str]:
    """What a value has that is missing or otherwise in another."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for name, value in given.items():
            if name in kept:
                yield from lost(value, kept[name], f"{path}.{name}")
            elif name not in BEYOND_THE_MODELS:
                yield f"{path}.{name}"
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for i, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from lost(one, other, f"{path}[{i}]")
    elif given != kept:
        yield f"{path}: {given!r} became {kept!r}"


def unknown_fields(dashboard: dict) -> list[str]:
    """What Grafana's models of dashboards, panels and queries do not keep when they read and write this one."""
    return list(lost(dashboard, json.loads(encoder.JSONEncoder().encode(model.Dashboard.from_json(dashboard)))))


def heatmap_problems(panel: dict) -> list[str]:
    """Buckets come as a heat map of rows named by their upper edges, and are not counted a second time."""
    found = [] if panel["options"]["calculate"] is False else ["calculates buckets of buckets"]
    if panel["options"]["yAxis"]["unit"] != panel["fieldConfig"]["defaults"]["unit"]:
        found.append("its axis has another unit")
    for target in panel["targets"]:
        if (target["format"], target["legendFormat"]) != ("heatmap", "{{le}}"):
            found.append("rows are not named by their edges")
        if not re.fullmatch(r"sum by \(le\) \((increase|rate)\(\w+_bucket\{[^}]*\}\[\$__rate_interval\]\)\)", target["expr"]):
            found.append(f"not one histogram's buckets: {target['expr']}")
    return found


@pytest.mark.parametrize("name", DASHBOARDS)
def test_grafanas_models_know_every_field(name: str) -> None:
    assert unknown_fields(DASHBOARDS[name]) == []


@pytest.mark.parametrize("change", [{"colour": {}}, {"yAxis": {"unitt": "s"}}, {"tooltip": {"show": True}}])
def test_a_field_that_grafana_does_not_know_is_found(change: dict) -> None:
    dashboard = json.loads(json.dumps(DASHBOARDS["capture-lens"]))
    next(panel for panel in dashboard["panels"] if panel["type"] == "heatmap")["options"] |= change
    assert len(unknown_fields(dashboard)) == 1


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels(name: str) -> None:
    for panel in panels(DASHBOARDS[name]):
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references), panel["title"]
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
            assert "histogram_quantile" not in target["expr"] or re.search(r"sum by \(le\b[^)]*\) \(rate\(\w+_bucket\{", target["expr"]), target["expr"]
        if panel["type"] == "heatmap":
            assert heatmap_problems(panel) == [], panel["title"]


def test_a_wrong_heat_map_is_found() -> None:
    panel = next(panel for panel in panels(DASHBOARDS["engine"]) if panel["type"] == "heatmap")
    wrong = panel | {"options": panel["options"] | {"calculate": True}, "targets": [panel["targets"][0] | {"format": "time_series", "expr": "up"}]}
    assert len(heatmap_problems(wrong)) == 3


def test_dashboards_stand_beside_each_other() -> None:
    for key in ("uid", "title"):
        assert len({dashboard[key] for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS)
    # As long as a uid may be.
    assert all(len(dashboard["uid"]) <= 40 for dashboard in DASHBOARDS.values())
    # Each leads to the others by a tag that all have.
    for dashboard in DASHBOARDS.values():
        (link,) = dashboard["links"]
        assert link["type"] == "dashboards" and all(set(link["tags"]) <= set(other["tags"]) for other in DASHBOARDS.values())


def test_provisioning() -> None:
    mounts = dict(volume.split(":")[:2] for volume in COMPOSE["services"]["grafana"]["volumes"])
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
    (file,) = (DEPLOY / "grafana/provisioning/datasources").iterdir()
    sources = yaml.safe_load(file.read_text())
    (file,) = (DEPLOY / "grafana/provisioning/dashboards").iterdir()
    provided = yaml.safe_load(file.read_text())
    assert sources.keys() == {"apiVersion", "datasources"} and provided.keys() == {"apiVersion", "providers"}
    assert sources["apiVersion"] == provided["apiVersion"] == 1
    (source,), (provider,) = sources["datasources"], provided["providers"]
    assert source.keys() <= DATASOURCE_KEYS and provider.keys() <= PROVIDER_KEYS
    assert (source["type"], source["access"], provider["type"]) == ("prometheus", "proxy", "file")
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
    variable = re.fullmatch(r"\$\{(\w+)\}", source["url"])[1]
    assert COMPOSE["services"]["grafana"]["environment"][variable] == "http://prometheus:9090"
    for name in ("compose.yml", "prometheus.yml"):
        assert yaml.safe_load((DEPLOY / "prometheus" / name).read_text())["global"]["scrape_interval"] == source["jsonData"]["timeInterval"]
