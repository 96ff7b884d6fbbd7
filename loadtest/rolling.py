"""Upgrades every service of a suite in turn while the generator runs with retries, and checks the ledger."""

import pathlib
import time

from suite_load import BROKEN, GOOD, ClusterError, Load, restart

# As an operator would: what others depend on first.
ORDER = ["steering_registry", "capture", "lens_decoder", "shard_worker", "gateway"]
# Longer than any rolling upgrade: the load is ended when the last service is back.
LOAD_S = 3600
# Retries of a request: with their delays about a minute.
RETRIES = 20


def answered(load: Load) -> bool:
    """Whether the generator has begun: its first line of progress is out."""
    return load.text.exists() and "requests started" in load.text.read_text()


def run(cluster, scenario: pathlib.Path, out: pathlib.Path, rounds: int = 1, flags: list[str] | None = None,
        say=lambda text: None) -> int:
    """The generator's verdict: GOOD when every request that had a retry left was answered in whole, once."""
    load = Load(cluster.address, scenario, out, "rolling",
                [*(flags or []), f"--duration={LOAD_S}s", f"--retries={RETRIES}", "--progress=200ms"])
    try:
        deadline = time.monotonic() + 60
        while not answered(load):
            if load.process.poll() is not None or time.monotonic() > deadline:
                raise ClusterError(f"the generator did not start: {load.text.read_text()[-2000:]}")
            time.sleep(0.05)
        for _ in range(rounds):
            for binary in ORDER:
                for process in [p for p in cluster.processes if p.binary == binary]:
                    took = restart(cluster, process)
                    say(f"  {process.name} upgraded in {took:.1f} s")
        load.stop()
        code = load.wait(300)
    except BaseException:
        load.stop()
        load.wait(300)
        raise
    if code not in (GOOD, BROKEN):
        raise ClusterError(f"the generator failed: {load.text.read_text()[-2000:]}")
    lines = load.text.read_text().splitlines()
    for line in lines:
        if "requests started" not in line:
            say(line)
    verdict = load.report()["ledger"]
    if verdict["unserved"] or verdict["refused"]:
        say(f"BROKEN: {verdict['unserved'] + verdict['refused']} requests found no answer within {RETRIES} retries")
        return BROKEN
    return code
