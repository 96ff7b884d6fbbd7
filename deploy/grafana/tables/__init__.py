"""The table of dashboards and panels that ../generate.py turns into Grafana's JSON.

In expressions {J} stands for the chosen jobs, {J, ...} for those and further matchers, [R] for Grafana's rate interval.
"""

from tables.capture_lens import CAPTURE_LENS
from tables.engine import ENGINE
from tables.overview import OVERVIEW
from tables.registry import REGISTRY

DASHBOARDS = (OVERVIEW, ENGINE, CAPTURE_LENS, REGISTRY)
