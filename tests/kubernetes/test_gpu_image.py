"""The gpu image, built from nothing with this machine's CUDA toolkit in place of NVIDIA's image, and run without a GPU.

Only in tests/run --long: building takes minutes. What it shows is that everything is there; no GPU is asked to compute.
"""

import json
import pathlib
import re
import subprocess

import pytest
from command_line import BINARIES
from container_tools import BASE_IMAGE, CUDA_IMAGE, IMAGES, ROOT, ContainerTools, missing_toolkit

LIBRARIES = "/opt/cuda"
# They come with the node.
OF_THE_DRIVER = {"libcuda.so.1", "libnvidia-ml.so.1"}


@pytest.fixture(scope="module")
def gpu_image(tools: ContainerTools) -> str:
    reason = missing_toolkit()
    if reason:
        pytest.skip(reason)
    tools.make_cuda()
    tools.build_and_tell("gpu", {"BASE": BASE_IMAGE, "CUDA": CUDA_IMAGE})
    return IMAGES["gpu"]


def run(tools: ContainerTools, *command: str) -> str:
    """What a command of the image says, run as the manifests run it."""
    return tools.podman("run", "--rm", "--network=none", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges",
                        f"--volume={ROOT}/tests/golden/models:/models:ro", IMAGES["gpu"], *command)


def test_every_service_starts(tools, gpu_image) -> None:
    for binary in BINARIES:
        assert run(tools, binary, "--version").split()[:2] == ["sextant", binary]


def test_no_library_is_missing(tools, gpu_image) -> None:
    linked = run(tools, "bash", "-c", f"ldd /usr/local/bin/* {LIBRARIES}/*")
    assert "not found" not in linked
    used = set(re.findall(rf"(\S+) => {LIBRARIES}/", linked))
    assert {"libcublasLt.so.13", "libnccl.so.2"} <= used
    # Those that CUDA's libraries open by their names, some without the minor version.
    named = set(run(tools, "bash", "-c", f"grep -aohE '\\blib(cu|nv)[[:alnum:]_-]+\\.so\\.[0-9]+' {LIBRARIES}/* | sort -u").split())
    there = run(tools, "ls", LIBRARIES).split()
    assert OF_THE_DRIVER <= named
    assert [name for name in named - OF_THE_DRIVER if not any(f"{file}.".startswith(f"{name}.") for file in there)] == []


def test_user_is_not_root(tools, gpu_image) -> None:
    assert json.loads(tools.podman("image", "inspect", gpu_image))[0]["Config"]["User"] == "10001:10001"
    assert run(tools, "id", "-u").strip() == "10001"


@pytest.mark.parametrize("command", [["shard_worker", "--ranks=1"], ["lens_decoder", "--capture=127.0.0.1:7720"]], ids=lambda c: c[0])
def test_without_a_driver_it_says_so(tools, gpu_image, command: list[str]) -> None:
    if pathlib.Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has an NVIDIA driver")
    # Its log is on the error stream, which podman() gives back only in the error.
    told = run(tools, "bash", "-c", f"{' '.join(command)} --device=cuda --model=/models/llama31_tiny 2>&1; echo exit $?")
    assert "DEVICE_UNAVAILABLE: --device cuda:0: no CUDA device can be used here" in told
    assert told.splitlines()[-1] == "exit 1"


def test_a_plan_needs_no_device(tools, gpu_image) -> None:
    told = run(tools, "shard_worker", "--plan", "--device=cuda", "--model=/models/llama31_tiny", "--ranks=2", "--device_memory_gb=80")
    assert told.splitlines()[-1] == "it fits"
