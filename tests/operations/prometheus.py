"""A real Prometheus server that scrapes one cluster for a test, and what is asked of it."""

import json
import pathlib
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy/prometheus/rules"
START_TIMEOUT_S = 60

CONFIG = """
global: {{scrape_interval: {interval}, scrape_timeout: {interval}, evaluation_interval: 1s}}
rule_files: ["{rules}/*.yml"]
scrape_configs:
  - job_name: sextant
    file_sd_configs: [{{files: ["{targets}"], refresh_interval: 1s}}]
"""


class Prometheus:
    """Runs until stop(). Rules and discovery are the ones of deploy/prometheus; only the intervals are shorter."""

    def __init__(self, folder: pathlib.Path, targets: pathlib.Path, port: int, interval: str = "2s") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.url = f"http://127.0.0.1:{port}"
        config = folder / "prometheus.yml"
        config.write_text(CONFIG.format(interval=interval, rules=RULES, targets=targets))
        self.log = folder / "prometheus.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={config}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                    "--log.level=warn",
                ],
                stdout=log,
                stderr=log,
            )
        self.started = time.time()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"prometheus did not start:\n{self.log.read_text()}")
            time.sleep(0.1)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2):
                return True
        except OSError:
            return False

    def get(self, path: str, **parameters: str | float) -> dict:
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(f"{parameters}: {json.load(error).get('error')}") from error

    def range(self, expression: str, step_s: float = 1) -> list[dict]:
        """Every series of the expression from the server's start until now."""
        return self.get("query_range", query=expression, start=self.started, end=time.time(), step=step_s)["result"]

    def greatest(self, expression: str) -> float | None:
        """The largest value that any series of the expression has had, or None without data."""
        values = [float(value) for series in self.range(expression) for _, value in series["values"]]
        return max((v for v in values if v == v), default=None)

    def targets_up(self) -> dict[str, str]:
        """The last scrape's outcome by address: up, down or unknown."""
        return {target["labels"]["instance"]: target["health"] for target in self.get("targets")["activeTargets"]}

    def scraped_since(self, moment: float, ports: list[int]) -> bool:
        """Whether a scrape of each of these ports has begun later than `moment`, in seconds since 1970."""
        scraped = {series["metric"]["instance"]: float(series["value"][1]) for series in self.get("query", query="timestamp(up)")["result"]}
        return all(scraped.get(f"127.0.0.1:{port}", 0) > moment for port in ports)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
