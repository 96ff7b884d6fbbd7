"""Checks what each kernel takes (registers, spills, shared memory) against resources.txt, or writes that file.

python3 kernels/cuda/resources.py check|write BUILD_FOLDER [TABLE]: reads the *.cu.o.resources of the build. A kernel
that spills, or one that the table does not know, fails; registers and shared memory are compared when the table was
written with the same nvcc. resources_test.py shows that it fails.
"""

import pathlib
import re
import subprocess
import sys

TABLE = pathlib.Path(__file__).with_name("resources.txt")
ENTRY = re.compile(r"Compiling entry function '(\S+)' for '(sm_\d+)'")
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")


def nvcc_version(build: pathlib.Path) -> str:
    cache = (build / "CMakeCache.txt").read_text()
    nvcc = re.search(r"^SEXTANT_NVCC:FILEPATH=(.+)$", cache, re.MULTILINE)
    text = subprocess.run([nvcc.group(1) if nvcc else "nvcc", "--version"], check=True, capture_output=True, text=True).stdout
    return re.search(r"V[\d.]+", text).group(0)


def demangled(names: list[str]) -> dict[str, str]:
    text = subprocess.run(["c++filt"], input="\n".join(names), check=True, capture_output=True, text=True).stdout
    short = [re.sub(r"\(.*", "", line.replace("(anonymous namespace)::", "").replace("sextant::cuda::", "")) for line in text.splitlines()]
    return dict(zip(names, (re.sub(r"^void ", "", name) for name in short)))


def read(build: pathlib.Path) -> dict[tuple[str, str], tuple[int, int, int]]:
    """(kernel, architecture) -> registers, spilled bytes, shared bytes."""
    found: dict[tuple[str, str], list[int]] = {}
    for file in sorted((build / "kernels/cuda/CMakeFiles/sextant_kernels_cuda.dir").glob("*.cu.o.resources")):
        key, spilled = None, 0
        for line in file.read_text().splitlines():
            if entry := ENTRY.search(line):
                key, spilled = (entry.group(1), entry.group(2)), 0
            elif spills := SPILLS.search(line):
                spilled = int(spills.group(2)) + int(spills.group(3))
            elif key and (used := USED.search(line)):
                shared = SHARED.search(line)
                found[key] = [int(used.group(1)), spilled, int(shared.group(1)) if shared else 0]
                key = None
    names = demangled(sorted({name for name, _ in found}))
    return {(names[name], arch): tuple(values) for (name, arch), values in found.items()}


def main() -> int:
    if len(sys.argv) not in (3, 4) or sys.argv[1] not in ("check", "write"):
        print(__doc__, file=sys.stderr)
        return 2
    build, path = pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]) if len(sys.argv) == 4 else TABLE
    now, version = read(build), nvcc_version(build)
    if not now:
        print("no *.cu.o.resources in the build: build sextant_kernels_cuda first", file=sys.stderr)
        return 1
    if sys.argv[1] == "write":
        lines = ["# What each kernel takes. Written by: python3 kernels/cuda/resources.py write BUILD_FOLDER", f"# nvcc {version}", "# architecture registers spilled_bytes shared_bytes kernel"]
        lines += [f"{arch} {values[0]} {values[1]} {values[2]} {kernel}" for (kernel, arch), values in sorted(now.items())]
        path.write_text("\n".join(lines) + "\n")
        print(f"{len(now)} entries")
        return 0
    text = path.read_text().splitlines()
    same_compiler = f"# nvcc {version}" in text
    table = {}
    for line in text:
        if not line.startswith("#"):
            arch, registers, spilled, shared, kernel = line.split(maxsplit=4)
            table[kernel, arch] = (int(registers), int(spilled), int(shared))
    wrong = [f"{kernel} on {arch} spills {values[1]} bytes" for (kernel, arch), values in now.items() if values[1] > table.get((kernel, arch), (0, 0, 0))[1]]
    known = {kernel for kernel, _ in table}
    wrong += [f"{kernel} is not in the table" for kernel in sorted({kernel for kernel, _ in now} - known)]
    if same_compiler:
        wrong += [f"{kernel} on {arch}: {table[kernel, arch]} in the table, {values} now (registers, spilled, shared)" for (kernel, arch), values in now.items() if table.get((kernel, arch), values) != values]
        wrong += [f"{kernel} on {arch} is in the table and not in the build" for kernel, arch in table if (kernel, arch) not in now and arch in {a for _, a in now}]
    print("\n".join(wrong) or f"{len(now)} kernels as in the table" + ("" if same_compiler else f" but for registers, which nvcc {version} may choose otherwise"))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
