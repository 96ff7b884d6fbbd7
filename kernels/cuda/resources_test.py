"""Negative controls of resources.py: a kernel that spills, or takes more than it did, or that nobody listed, fails.

python3 kernels/cuda/resources_test.py BUILD_FOLDER (of a build with nvcc)
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
RESOURCES = "kernels/cuda/CMakeFiles/sextant_kernels_cuda.dir"
BUILD = pathlib.Path(sys.argv.pop(1))
# More values alive at the barrier than there are registers.
SPILLS = """
extern "C" __global__ void SpillingKernel(float* values) {
  float all[48];
#pragma unroll
  for (int i = 0; i < 48; ++i) all[i] = values[i * 1024 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 48; ++i) values[i * 1024 + threadIdx.x] = all[47 - i] * all[(i * 7) % 48];
}
"""


class ResourcesTest(unittest.TestCase):
    def setUp(self) -> None:
        """A copy of what the build says of its kernels, and a table written from it."""
        self.build = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.folder = self.build / RESOURCES
        self.folder.mkdir(parents=True)
        for file in (BUILD / RESOURCES).glob("*.cu.o.resources"):
            shutil.copy(file, self.folder)
        shutil.copy(BUILD / "CMakeCache.txt", self.build)
        self.table = self.build / "table.txt"
        self.assertEqual(self.run_script("write").returncode, 0)

    def run_script(self, what: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, HERE / "resources.py", what, self.build, self.table], capture_output=True, text=True)

    def expect_failure(self, words: str) -> None:
        result = self.run_script("check")
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertRegex(result.stdout, words)

    def change(self, file: str, pattern: str, to: str) -> None:
        """Replaces the first match in what the build says of one file."""
        path = self.folder / f"{file}.cu.o.resources"
        text, count = re.subn(pattern, to, path.read_text(), count=1)
        self.assertEqual(count, 1, path.read_text())
        path.write_text(text)

    def test_the_build_as_it_is_passes(self) -> None:
        self.assertEqual(self.run_script("check").returncode, 0)

    def test_a_kernel_that_the_compiler_makes_spill(self) -> None:
        source = self.build / "spills.cu"
        source.write_text(SPILLS)
        nvcc = re.search(r"^SEXTANT_NVCC:FILEPATH=(.+)$", (BUILD / "CMakeCache.txt").read_text(), re.MULTILINE)[1]
        command = [HERE / "keep_resources", nvcc, "-arch=sm_90", "-maxrregcount=24", "-Xptxas=-v", "-c", source, "-o", self.folder / "spills.cu.o"]
        subprocess.run(command, check=True)
        self.expect_failure(r"SpillingKernel on sm_90 spills [1-9]\d* bytes")

    def test_a_known_kernel_that_spills_now(self) -> None:
        self.change("norm", r"\b0 bytes spill stores", "8 bytes spill stores")
        self.expect_failure(r"NormKernel.* spills 8 bytes")

    def test_a_kernel_that_takes_one_register_more(self) -> None:
        self.change("norm", r"Used (\d+) registers", r"Used 1\1 registers")
        self.expect_failure(r"NormKernel.* in the table")

    def test_an_architecture_that_the_table_does_not_list(self) -> None:
        for path in self.folder.iterdir():
            path.write_text(path.read_text().replace("'sm_90'", "'sm_86'"))
        result = self.run_script("check")
        self.assertEqual(result.returncode, 0, result.stdout)
        self.change("norm", r"(for 'sm_86'(?:.*\n)*?.*)\b0 bytes spill stores", r"\g<1>8 bytes spill stores")
        self.expect_failure(r"NormKernel.* on sm_86 spills 8 bytes")

    def test_a_kernel_that_is_gone(self) -> None:
        (self.folder / "norm.cu.o.resources").unlink()
        self.expect_failure(r"NormKernel.* is in the table and not in the build")

    def test_a_kernel_that_is_not_in_the_table_whatever_the_compiler(self) -> None:
        lines = [line for line in self.table.read_text().splitlines() if "NormKernel" not in line and not line.startswith("# nvcc")]
        self.table.write_text("\n".join(lines) + "\n")
        self.expect_failure(r"NormKernel.* is not in the table")


if __name__ == "__main__":
    unittest.main()
