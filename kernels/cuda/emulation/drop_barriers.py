#!/usr/bin/env python3
"""Deletes barriers and waits, one at a time, and checks that the tests then fail.

    kernels/cuda/emulation/drop_barriers.py BUILD_FOLDER [--all] [WORDS...]

Each barrier in a .cu file carries a comment that says what it orders; what orders streams in a .cc file says it itself.
WORDS pick by words of that. Without
--all (or SEXTANT_TEST_SET=long) and WORDS, only the few of SOME. A barrier whose loss no test notices is printed as SURVIVED and ends the run
with 1, unless NEEDLESS says why it may.
"""
import argparse
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
KERNELS = {  # file: test program and the tests that look at it
    "attention_decode.cu": ("cuda_attention_test", "DecodeAttentionTest.Matches*"),
    "attention_prefill.cu": ("cuda_attention_test", "PrefillAttentionTest.Matches*"),
    "capture_staging.cc": ("cuda_capture_staging_test", "*CaptureStagingTest.R*:*CaptureStagingTest.Small*"),
    "attention_plain.cu": ("cuda_attention_test", "PlainAttentionTest.*"),
    "sample.cu": ("cuda_sample_test", "SampleTest.DrawsWhatTheOracleDraws:SampleTest.Ties*"),
    "lens_stats.cu": ("cuda_lens_test", "CudaLensTest.MatchesReferenceInF32:CudaLensTest.Exact*"),
    "lens_finish.cu": ("cuda_lens_test", "CudaLensTest.MatchesReferenceInF32:CudaLensTest.Tracked*"),
}
SOME = ("this tile is here", "the histogram is full", "cudaStreamWaitEvent(computing, free_")
NEEDLESS = {}
BARRIER = re.compile(r"^\s*(__sync(?:threads|warp)\(\);|copies\.Wait<0>\(\);)\s*(?://\s*(.*))?$")
EVENT = re.compile(r"cuda(?:StreamWaitEvent|EventRecord)\([^()]*\)")


def barriers(path):
    """Line numbers of a file's barriers, their comments, and the line without. A wait has the comment of the barrier after it."""
    lines = path.read_text().splitlines(keepends=True)
    for number, line in enumerate(lines):
        if path.suffix == ".cc":
            if event := EVENT.search(line):
                yield number, event[0], line.replace(event[0], "cudaSuccess")
        elif match := BARRIER.match(line):
            comment = match[2] or "the copies before: " + (BARRIER.match(lines[number + 1]) or [""] * 3)[2]
            yield number, comment, ""


class Tests:
    """Builds a test program with one kernel file replaced, and runs it."""

    def __init__(self, build):
        self.build = build
        commands = json.loads((build / "compile_commands.json").read_text())
        self.compile = {pathlib.Path(c["file"]).name: c for c in commands if "kernels_cuda_emulated" in c["command"]}
        self.link = {}

    def link_command(self, program):
        if program not in self.link:
            out = subprocess.run(["ninja", "-C", self.build, "-t", "commands", program], capture_output=True, text=True, check=True)
            words = shlex.split(out.stdout.splitlines()[-1])
            self.link[program] = words[words.index("&&") + 1 : len(words) - words[::-1].index("&&") - 1]
        return list(self.link[program])

    def fails(self, name, text, folder):
        """True when the tests of `name` fail with `text` in its place. Raises when that does not build."""
        source, mutant, program = folder / name, folder / (name + ".o"), folder / "program"
        source.write_text(text)
        words = shlex.split(self.compile[name]["command"])
        words[words.index("-o") + 1] = str(mutant)
        words[words.index("-c") + 1] = str(source)
        words = [w for w in words if w not in ("-O2", "-g1")] + ["-O1", "-g0"]
        subprocess.run(words, cwd=self.compile[name]["directory"], check=True)
        test, wanted = KERNELS[name]
        link = self.link_command(test)
        link[link.index("-o") + 1] = str(program)
        first_library = next(i for i, word in enumerate(link) if word.endswith(".a"))
        subprocess.run(link[:first_library] + [str(mutant)] + link[first_library:], cwd=self.build, check=True)
        run = subprocess.run([program, f"--gtest_filter={wanted}"], capture_output=True, timeout=300)
        return run.returncode != 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--all", action="store_true")
    arguments = parser.parse_args()
    tests = Tests(arguments.build.resolve())
    every = arguments.all or os.environ.get("SEXTANT_TEST_SET") == "long"
    wanted = arguments.words or ([""] if every else SOME)
    survived, caught = [], 0
    with tempfile.TemporaryDirectory() as folder:
        for name in KERNELS:
            path = HERE.parent / name
            chosen = [b for b in barriers(path) if any(word in b[1] for word in wanted)]
            if chosen and tests.fails(name, path.read_text(), pathlib.Path(folder)):
                sys.exit(f"{name}: its tests fail as it is")
            for number, comment, without in chosen:
                lines = path.read_text().splitlines(keepends=True)
                lines[number] = without
                if tests.fails(name, "".join(lines), pathlib.Path(folder)):
                    verdict, caught = "caught", caught + 1
                else:
                    verdict = "needless: " + NEEDLESS[name, comment] if (name, comment) in NEEDLESS else "SURVIVED"
                    survived += [comment] if verdict == "SURVIVED" else []
                print(f"{name}:{number + 1}: {comment}: {verdict}", flush=True)
    print(f"{caught} caught, {len(survived)} survived")
    sys.exit(1 if survived or caught == 0 else 0)


if __name__ == "__main__":
    main()
