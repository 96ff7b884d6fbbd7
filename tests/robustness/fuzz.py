"""Builds every libFuzzer target with clang and runs each for some seconds over its corpus, two at a time."""

import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import time
import xml.sax.saxutils

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / "build/fuzz"
AT_A_TIME = 2


def run(command: list[str], log: pathlib.Path, timeout_s: float) -> int:
    with open(log, "wb") as out:
        try:
            return subprocess.run(command, stdout=out, stderr=out, timeout=timeout_s, cwd=BUILD).returncode
        except subprocess.TimeoutExpired:
            return 124


def fuzz(target: pathlib.Path, seconds: int) -> tuple[str, float, str]:
    """Runs one target. (its name, how long it took, what is wrong or "")."""
    corpus = BUILD / "corpus" / target.name
    corpus.mkdir(parents=True, exist_ok=True)
    seeds = [str(p) for p in ROOT.glob(f"*/*/fuzz/{target.name}") if p.is_dir()]
    if not seeds:
        return target.name, 0.0, f"no seeds: make a folder .../fuzz/{target.name}"
    start = time.monotonic()
    log = BUILD / f"{target.name}.log"
    code = run([str(target), str(corpus), *seeds, f"-max_total_time={seconds}", "-max_len=65536", "-print_final_stats=1",
                "-rss_limit_mb=2048", "-timeout=20"], log, seconds + 120)
    executed = re.search(r"stat::number_of_executed_units:\s*(\d+)", log.read_text(errors="replace"))
    print(f"  {target.name}: {'ok' if code == 0 else 'FAILED'}, {executed[1] if executed else 'no'} inputs", flush=True)
    return target.name, time.monotonic() - start, "" if code == 0 else f"exit {code}: {log}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="for each target (default 5)")
    parser.add_argument("--junitxml", type=pathlib.Path)
    arguments = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    configure = ["cmake", "-S", str(ROOT), "-B", str(BUILD), "-G", "Ninja", "-DCMAKE_CXX_COMPILER=clang++-14",
                 "-DCMAKE_C_COMPILER=clang-14", "-DSEXTANT_FUZZERS=ON", "-DSEXTANT_TESTS=OFF", "-DSEXTANT_BENCHMARKS=OFF",
                 "-DSEXTANT_SANITIZE=address,undefined"]
    cases = []
    for name, command in (("configure", configure), ("build", ["ninja", "-C", str(BUILD), "fuzzers"])):
        log = BUILD / f"{name}.log"
        if run(command, log, 1800) != 0:
            print(log.read_text()[-4000:])
            cases.append((name, 0.0, f"{name} failed, see {log}"))
    if not cases:
        targets = sorted(p for p in (BUILD / "fuzz").glob("*") if os.access(p, os.X_OK) and p.is_file())
        with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
            cases = list(pool.map(lambda target: fuzz(target, arguments.seconds), targets))
    if arguments.junitxml:
        body = "".join(
            f'<testcase classname="fuzz" name="{name}" time="{seconds:.1f}">'
            + (f"<failure message={xml.sax.saxutils.quoteattr(why)}/>" if why else "") + "</testcase>"
            for name, seconds, why in cases)
        arguments.junitxml.write_text(f"<testsuite name='fuzz'>{body}</testsuite>")
    return 1 if any(why for _, _, why in cases) else 0


if __name__ == "__main__":
    sys.exit(main())
