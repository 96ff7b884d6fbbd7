"""Writes the dashboards' JSON from the table in tables/: `python3 deploy/grafana/generate.py`. Standard library only."""

import json
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from tables import DASHBOARDS  # noqa: E402
from tables.panel import Dashboard, Panel  # noqa: E402

FOLDER = pathlib.Path(__file__).resolve().parent / "dashboards"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
HEIGHT = 8
# The oldest Grafana whose panels these are.
SCHEMA_VERSION = 39
GRAFANA = "10.3.0"


def expression(text: str) -> str:
    """The expression as Grafana gets it."""
    text = re.sub(r"\{J(, )?([^}]*)\}", lambda m: '{job=~"$job"' + (", " if m[1] else "") + m[2] + "}", text)
    return text.replace("[R]", "[$__rate_interval]")


def target(panel: Panel, index: int) -> dict:
    """One query."""
    text, legend = panel.queries[index]
    query = {"datasource": DATASOURCE, "expr": expression(text), "refId": chr(ord("A") + index)}
    if panel.kind == "table":
        return query | {"instant": True, "format": "table"}
    if panel.kind == "stat":
        return query | {"instant": True, "legendFormat": legend}
    if panel.kind == "heatmap":
        return query | {"format": "heatmap", "legendFormat": legend}
    return query | {"legendFormat": legend}


def options(panel: Panel) -> dict:
    """What differs by kind of panel."""
    if panel.kind == "stat":
        return {"options": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "none", "textMode": "auto"}}
    if panel.kind == "table":
        hidden = {name: True for name in ("Time", "Value", "__name__", "job")}
        return {"transformations": [{"id": "organize", "options": {"excludeByName": hidden}}], "options": {"showHeader": True}}
    if panel.kind == "heatmap":
        return {
            "options": {
                "calculate": False,
                "yAxis": {"unit": panel.unit},
                "color": {"mode": "scheme", "scheme": "Blues"},
                "tooltip": {"mode": "single", "yHistogram": True},
            }
        }
    return {"options": {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}, "tooltip": {"mode": "multi", "sort": "desc"}}}


def field_config(panel: Panel) -> dict:
    """Unit, axis and drawing."""
    defaults: dict = {"unit": panel.unit, "min": 0}
    if panel.maximum is not None:
        defaults["max"] = panel.maximum
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 30 if panel.stack else 5,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stack else "none", "group": "A"},
        }
    return {"defaults": defaults, "overrides": []}


def layout(dashboard: Dashboard) -> list[dict]:
    """Rows one under the other, panels from the left as they fit."""
    panels: list[dict] = []
    y = 0
    for title, row in dashboard.rows:
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}}
        )
        y += 1
        x = 0
        height = 4 if all(p.kind == "stat" for p in row) else HEIGHT
        for panel in row:
            if x + panel.width > 24:
                x, y = 0, y + height
            panels.append(
                {
                    "id": len(panels) + 1,
                    "type": panel.kind,
                    "title": panel.title,
                    "description": panel.description,
                    "datasource": DATASOURCE,
                    "gridPos": {"x": x, "y": y, "w": panel.width, "h": height},
                    "targets": [target(panel, i) for i in range(len(panel.queries))],
                    "fieldConfig": field_config(panel),
                    **options(panel),
                }
            )
            x += panel.width
        y += height
    return panels


def variables() -> list[dict]:
    """The data source and the jobs looked at."""
    query = "label_values(sextant_build_info, job)"
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1, "hide": 0, "regex": ""},
        {
            "name": "job",
            "label": "Job",
            "type": "query",
            "datasource": DATASOURCE,
            "definition": query,
            "query": {"query": query, "refId": "job"},
            "refresh": 2,
            "includeAll": True,
            "allValue": ".*",
            "multi": True,
            "sort": 1,
            "hide": 0,
            "current": {"text": "All", "value": "$__all", "selected": True},
        },
    ]


def render(dashboard: Dashboard) -> dict:
    """Grafana's JSON of one dashboard."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["sextant"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "__requires": [
            {"type": "grafana", "id": "grafana", "name": "Grafana", "version": GRAFANA},
            {"type": "datasource", "id": "prometheus", "name": "Prometheus", "version": "1.0.0"},
        ],
        "templating": {"list": variables()},
        "annotations": {
            "list": [
                {
                    "name": "Alerts",
                    "datasource": DATASOURCE,
                    "enable": True,
                    "iconColor": "red",
                    "expr": 'ALERTS{alertname=~"Sextant.*", alertstate="firing"}',
                    "titleFormat": "{{alertname}}",
                    "textFormat": "{{instance}}",
                }
            ]
        },
        "links": [
            {
                "type": "dashboards",
                "tags": ["sextant"],
                "title": "Sextant",
                "asDropdown": False,
                "keepTime": True,
                "includeVars": True,
                "targetBlank": False,
                "icon": "external link",
            }
        ],
        "panels": layout(dashboard),
    }


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for dashboard in DASHBOARDS:
        path = FOLDER / f"{dashboard.uid.removeprefix('sextant-')}.json"
        path.write_text(json.dumps(render(dashboard), indent=1) + "\n")
        print(path)


if __name__ == "__main__":
    main()
