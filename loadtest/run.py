"""Brings up a suite, runs a scenario against it, writes a report (table, JSON, ledger, plots) and takes the suite down.

    loadtest/run chat                   one run as the scenario says
    loadtest/run chat --sweep           offered load from half of capacity to five times of it
    loadtest/run mixed --rolling        every service is upgraded in turn while the load runs
    loadtest/run mixed --soak 10m       whether a process keeps anything of the calls it has answered
    loadtest/run tiny --kinds 20000     the same of one kind of call at a time: cancelled, refused, cut off, ...

Exit status: 0 all is well, 2 something that must hold does not (the ledger is broken, goodput falls, memory grows),
1 the run could not be made, 130 interrupted. On failure and Ctrl-C the suite is taken down as well.
"""

import argparse
import math
import pathlib
import re
import signal
import sys
from collections.abc import Callable

try:
    import growth
    import held_memory
    import plots
    import rolling
    import soak
    import sweep
except ModuleNotFoundError as error:
    sys.exit(f"error: {error}; `deploy/setup venv test` installs it")
from suite_load import BROKEN, FAILED, INTERRUPTED, ROOT, Broken, ClusterError, check_generator, machine, run_load, scenario_path, suite

# Of each way to run, the flags that would do nothing; None is a plain run.
IDLE = {"sweep": ["rounds"], "rolling": ["duration"], "soak": ["duration", "rounds"], "kinds": ["rate", "duration", "seed", "rounds"], None: ["rounds"]}
DEFAULT_MODEL = ROOT / "build/models/SmolLM2-135M-Instruct.Q4_1.gguf"


def seconds(text: str) -> float:
    """Of "90s", "10m" or "2h"."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90s or 10m")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


def at_least(least: float, kind: Callable[[str], float]) -> Callable[[str], float]:
    """A type of arguments: what `kind` reads, from `least` on."""
    def read(text: str) -> float:
        value = kind(text)
        if not least <= value < math.inf:
            raise argparse.ArgumentTypeError(f"{text!r} is too little or no number: at least {least}{'s' if kind is seconds else ''}")
        return value
    read.__name__ = kind.__name__  # which argparse says
    return read


class Parser(argparse.ArgumentParser):
    """Ends with status 1 on a mistake: 2 says what a run has found."""

    def error(self, message: str) -> None:
        self.print_usage(sys.stderr)
        self.exit(FAILED, f"{self.prog}: error: {message}\n")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog="loadtest/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", help="a name in loadtest/scenarios, or a file")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--sweep", action="store_true", help="measure capacity, then offer from half of it to five times")
    kind.add_argument("--rolling", action="store_true", help="upgrade every service in turn under load")
    kind.add_argument("--soak", type=at_least(growth.READINGS, seconds), metavar="TIME", help="run for so long and watch memory")
    kind.add_argument("--kinds", type=at_least(soak.FEWEST_CALLS, int), metavar="CALLS", help="so many calls of each kind, a tenth of them from bad clients, and watch memory")
    parser.add_argument("--model", type=pathlib.Path, default=DEFAULT_MODEL, help="Hugging Face folder or GGUF file")
    parser.add_argument("--ranks", type=at_least(1, int), default=1)
    parser.add_argument("--decoders", type=at_least(0, int), default=1)
    parser.add_argument("--port", type=int, default=27700, help="base port of the suite (default 27700)")
    parser.add_argument("--rate", type=at_least(0.01, float), help="requests a second, in place of the scenario's; of a sweep's first run (default 50)")
    parser.add_argument("--duration", type=at_least(0.1, seconds), help="in place of the scenario's; of each run of a sweep (default 20s)")
    parser.add_argument("--seed", type=at_least(0, int), help="in place of the scenario's")
    parser.add_argument("--rounds", type=at_least(1, int), help="of upgrades (default 1)")
    parser.add_argument("--flag", action="append", default=[], metavar="SERVICE:--NAME=VALUE", help="a flag for a service; repeatable")
    parser.add_argument("--out", type=pathlib.Path, help="folder of the report (default build/loadtest/SCENARIO)")
    found = parser.parse_args(arguments)
    way = next((name for name in ("sweep", "rolling", "soak", "kinds") if getattr(found, name) not in (None, False)), None)
    for flag in IDLE[way]:
        if getattr(found, flag) is not None:
            parser.error(f"--{flag} does nothing {f'with --{way}' if way else 'without --rolling'}: leave it out")
    return found


def load_flags(arguments: argparse.Namespace) -> list[str]:
    flags = []
    if arguments.rate is not None:
        flags.append(f"--rate={arguments.rate}")
    if arguments.duration is not None:
        flags.append(f"--duration={arguments.duration}s")
    if arguments.seed is not None:
        flags.append(f"--seed={arguments.seed}")
    return flags


def service_flags(arguments: argparse.Namespace) -> dict[str, list[str]]:
    extra: dict[str, list[str]] = {}
    for text in arguments.flag:
        service, colon, flag = text.partition(":")
        if not colon or not flag.startswith("--"):
            raise ClusterError(f"--flag {text!r}: write e.g. shard_worker:--max_sequences=8")
        extra.setdefault(service, []).append(flag)
    return extra


def run_once(cluster, scenario: pathlib.Path, out: pathlib.Path, arguments: argparse.Namespace) -> int:
    code, report = run_load(cluster, scenario, out, flags=load_flags(arguments), progress=sys.stderr)
    print((out / "load.txt").read_text(), end="")
    plots.latencies(report, out / "latency.svg")
    return code


def say(text: str) -> None:
    print(text, flush=True)


def otherwise(value, default):
    return default if value is None else value


def run_as_told(cluster, scenario: pathlib.Path, out: pathlib.Path, arguments: argparse.Namespace) -> int:
    seed = otherwise(arguments.seed, 1)
    if arguments.sweep:
        return sweep.run(cluster, scenario, out, otherwise(arguments.duration, 20), otherwise(arguments.rate, 50), seed, say)
    if arguments.rolling:
        return rolling.run(cluster, scenario, out, otherwise(arguments.rounds, 1), load_flags(arguments), say)
    if arguments.soak is not None:
        return soak.run(cluster, scenario, out, arguments.soak, load_flags(arguments), seed, say, sys.stderr)
    if arguments.kinds is not None:
        return soak.run_kinds(cluster, scenario, out, arguments.kinds, say)
    return run_once(cluster, scenario, out, arguments)


def main(words: list[str] | None = None) -> int:
    arguments = parse(words)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        scenario = scenario_path(arguments.scenario)
        check_generator()
        out = (arguments.out or ROOT / "build/loadtest" / scenario.stem).resolve()
        out.mkdir(parents=True, exist_ok=True)
        say(machine())
        exact = arguments.soak is not None or arguments.kinds is not None
        with suite(out / "suite", arguments.model, arguments.ranks, arguments.decoders, arguments.port,
                   extra=service_flags(arguments), environment=held_memory.EXACT if exact else None,
                   say=lambda text: say(f"  {text}")) as cluster:
            code = run_as_told(cluster, scenario, out, arguments)
        print(machine())
        print(f"report in {out}")
        return code
    except Broken as broken:
        say(f"BROKEN: {broken}")
        return BROKEN
    except (ClusterError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted; the suite has been taken down", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
