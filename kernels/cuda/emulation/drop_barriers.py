#!/usr/bin/env python3
"""Leaves out barriers and waits of the device code, one at a time, and checks that a test then fails.

    kernels/cuda/emulation/drop_barriers.py BUILD_FOLDER [--all] [PLACES...]

The emulation leaves out the one it is told of (dropped.h), so nothing is compiled. PLACES pick by parts of
"norm.cu:32: the line". Without --all (or SEXTANT_TEST_SET=long) and PLACES: one of each file, always the same one.
Each is tried with the tests of its file, in turn, until one fails; if none does it is printed as SURVIVED, or as NOT REACHED
when no test came by, and the run ends with 1. A file with barriers and without tests in TESTS is an error.
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import time
import zlib

FOLDER = pathlib.Path(__file__).resolve().parent.parent
ATTENTION, LENS, SAMPLE = "cuda_attention_test", "cuda_lens_test", "cuda_sample_test"
CONTRACT, BACKEND = "cuda_emulated_backend_contract_test", "cuda_device_backend_test"
TESTS = {  # file: test programs and the tests that look at it
    "argument_ring.cc": [(BACKEND, "*.ManyMoreRowLists*")],
    "attention_decode.cu": [(ATTENTION, "DecodeAttentionTest.Matches*")],
    "attention_plain.cu": [(ATTENTION, "PlainAttentionTest.*")],
    "attention_prefill.cu": [(ATTENTION, "PrefillAttentionTest.Matches*:*.ScoresFar*")],
    "capture_staging.cc": [("cuda_capture_staging_test", "*CaptureStagingTest.R*:*CaptureStagingTest.Small*")],
    "lens.cc": [(LENS, "CudaLensOrderTest.*")],
    "lens_finish.cu": [(LENS, "CudaLensTest.MatchesReferenceInF32:CudaLensTest.Tracked*")],
    "lens_stats.cu": [(LENS, "CudaLensTest.MatchesReferenceInF32:CudaLensTest.Exact*")],
    "reduce.h": [(CONTRACT, "*BackendForwardTest.NormsRows*"), (SAMPLE, "SampleTest.DrawsWhatTheOracleDraws")],
    "sample.cu": [(SAMPLE, "SampleTest.DrawsWhatTheOracleDraws:SampleTest.Ties*")],
    "stream.cc": [(CONTRACT, "*BackendOrderTest.*")],
}
# Waits of the host are queries, which cannot be left out; the events that they wait for can.
ORDERS = re.compile(r"\b__sync(?:threads|warp)\w*\(|\.Wait<\d+>\(|\bcuda(?:StreamWaitEvent|EventRecord)\(")
SECONDS = 120  # of one run; a barrier that is missed may make a test wait for ever
NOT_REACHED = 4


def places(path):
    """(line number, the line) of each barrier and wait of a file."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if ORDERS.search(line.split("//")[0]):
            yield number, line.strip()


def end_of(build, program, wanted, place=None):
    """The exit code of a test program; None when it did not end in time."""
    command = [build / "tests" / program, f"--gtest_filter={wanted}", "--gtest_brief=1", *([f"--drop={place}"] if place else [])]
    try:
        return subprocess.run(command, capture_output=True, timeout=SECONDS).returncode
    except subprocess.TimeoutExpired:
        return None


def verdict(build, name, number):
    codes = []
    for program, wanted in TESTS[name]:
        codes.append(end_of(build, program, wanted, f"{name}:{number}"))
        if codes[-1] not in (0, NOT_REACHED):
            return "caught"
    return "NOT REACHED" if set(codes) == {NOT_REACHED} else "SURVIVED"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("places", nargs="*")
    parser.add_argument("--all", action="store_true")
    arguments = parser.parse_args()
    every = arguments.all or os.environ.get("SEXTANT_TEST_SET") == "long"
    missed, caught = [], 0
    for path in sorted(p for ending in ("cu", "cc", "h") for p in FOLDER.glob(f"*.{ending}")):
        found = list(places(path))
        if found and path.name not in TESTS:
            missed.append(f"{path.name}: has barriers or waits, and no tests here")
            continue
        chosen = [p for p in found if any(word in f"{path.name}:{p[0]}: {p[1]}" for word in arguments.places)]
        if not arguments.places:
            # By what the line says, so that the choice stays when lines move.
            chosen = found if every else sorted(found, key=lambda p: zlib.crc32(p[1].encode()))[:1]
        for program, wanted in TESTS[path.name] if chosen else []:
            if (code := end_of(arguments.build, program, wanted)) != 0:
                sys.exit(f"{program} --gtest_filter={wanted} ends with {code} as it is")
        for number, line in chosen:
            start = time.monotonic()
            said = verdict(arguments.build, path.name, number)
            print(f"{path.name}:{number}: {line}: {said} ({time.monotonic() - start:.1f} s)", flush=True)
            caught += said == "caught"
            missed += [f"{path.name}:{number}: {line}: {said}"] if said.isupper() else []
    print("\n".join([*missed, f"{caught} caught, {len(missed)} missed"]))
    sys.exit(1 if missed or caught == 0 else 0)


if __name__ == "__main__":
    main()
