"""Builds images with buildah and runs pods with podman, in a storage of its own, without a daemon or a registry."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BASE_IMAGE = "localhost/debian:bookworm-slim"
CUDA_IMAGE = "localhost/cuda:13.0"
PROMETHEUS_IMAGE = "localhost/prometheus:debian"
TOOLKIT = pathlib.Path("/usr/local/cuda-13.0")
# By target of deploy/Dockerfile.
IMAGES = {"cpu": "localhost/sextant:0.1.0", "gpu": "localhost/sextant-gpu:0.1.0"}
PODMAN_COMPOSE = pathlib.Path(sys.executable).parent / "podman-compose"
# crun, podman's default, may not raise limits in every machine; runc takes them as they are.
SETTINGS = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""


class ContainerError(Exception):
    """A command that failed, with the end of what it said."""


def missing() -> str | None:
    """Why containers cannot be built and run here, or None."""
    if os.geteuid() != 0:
        return "building and playing containers needs root"
    absent = [name for name in ("buildah", "podman", "runc", "debootstrap") if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)} (deploy/setup packages containers)" if absent else None


def missing_toolkit() -> str | None:
    """Why there is nothing here to make the stand-in for NVIDIA's image of, or None."""
    nccl = [TOOLKIT / "lib64/libnccl.so.2", pathlib.Path("/usr/lib/x86_64-linux-gnu/libnccl.so.2")]
    absent = [str(path) for path in (TOOLKIT / "bin/nvcc", TOOLKIT / "lib64/libcublasLt.so.13") if not path.exists()]
    absent += [] if any(path.exists() for path in nccl) else [f"{nccl[0]} or {nccl[1]}"]
    return f"no CUDA 13.0 toolkit with NCCL on this machine: there is no {', no '.join(absent)}" if absent else None


class ContainerTools:
    """buildah and podman with storage and settings in `folder`."""

    def __init__(self, folder: pathlib.Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        (folder / "containers.conf").write_text(SETTINGS)
        self.storage = ["--root", str(folder / "storage"), "--runroot", str(folder / "run")]
        # Without systemd's timers whoever wants to know asks: podman healthcheck run.
        self.environment = os.environ | {"CONTAINERS_CONF": str(folder / "containers.conf"), "DISABLE_HC_SYSTEMD": "true"}
        self.networks = ["--network-config-dir", str(folder / "networks")]

    def _run(self, command: list[str], timeout_s: float, log: pathlib.Path | None = None, variables: dict[str, str] | None = None) -> str:
        with contextlib.ExitStack() as stack:
            out = subprocess.PIPE if log is None else stack.enter_context(open(log, "w"))
            # In a session of its own, so that what it has started can be ended with it.
            process = stack.enter_context(subprocess.Popen(
                command, env=self.environment | (variables or {}), stdout=out, stderr=out, text=True, start_new_session=True))
            try:
                output, error = process.communicate(timeout=timeout_s)
            except BaseException:  # too slow, or Ctrl-C, which does not reach another session
                os.killpg(process.pid, signal.SIGKILL)
                raise
        if log is not None:
            output = error = log.read_text(errors="replace")
        if process.returncode != 0:
            raise ContainerError(f"{' '.join(command)}: exit status {process.returncode}\n" + "\n".join(error.splitlines()[-25:]))
        return output

    def podman(self, *arguments: str, timeout_s: float = 120) -> str:
        return self._run(["podman", *self.storage, *self.networks, *arguments], timeout_s)

    def has_image(self, name: str) -> bool:
        try:
            self.podman("image", "exists", name)
        except ContainerError:
            return False
        return True

    def compose(self, variables: dict[str, str], files: list[pathlib.Path], *arguments: str, timeout_s: float = 300) -> str:
        """podman-compose with these variables for its files."""
        options = [f"--podman-args={' '.join([*self.storage, *self.networks])}", *(f"--file={file}" for file in files)]
        return self._run([str(PODMAN_COMPOSE), *options, *arguments], timeout_s, variables=variables)

    def make_base(self) -> None:
        """The image that stands for debian:bookworm-slim, out of this machine's apt mirror."""
        self._run([str(pathlib.Path(__file__).parent / "base_image"), *self.storage], timeout_s=1800)

    def make_prometheus(self) -> None:
        """The image that stands for Prometheus', out of this machine's package."""
        self._run([str(pathlib.Path(__file__).parent / "prometheus_image"), *self.storage], timeout_s=600)

    def make_cuda(self) -> None:
        """The image that stands for NVIDIA's, out of this machine's toolkit."""
        self._run([str(pathlib.Path(__file__).parent / "cuda_image"), str(TOOLKIT), *self.storage], timeout_s=600)

    def build(self, target: str, name: str, arguments: dict[str, str]) -> None:
        """Builds a target of deploy/Dockerfile; the whole output is in `folder`/build-TARGET.log."""
        options = [f"--build-arg={key}={value}" for key, value in arguments.items()]
        # This machine's own compile cache, if there is one, instead of an empty one of the build's.
        cache = pathlib.Path(os.environ.get("CCACHE_DIR", pathlib.Path.home() / ".cache/ccache"))
        if cache.is_dir():
            options.append(f"--volume={cache}:/ccache")
        self._run(["buildah", *self.storage, "bud", "--isolation", "chroot", "--format", "docker", "--layers", "--pull-never", *options, "--target", target,
                   "-f", str(ROOT / "deploy/Dockerfile"), "-t", name, str(ROOT)], timeout_s=3600, log=self.folder / f"build-{target}.log")

    def build_and_tell(self, target: str, arguments: dict[str, str]) -> None:
        """Builds a target under its usual name; prints time and size."""
        start = time.monotonic()
        self.build(target, IMAGES[target], arguments)
        print(f"\n{target} image: {time.monotonic() - start:.0f} s, {self.image_bytes(IMAGES[target]) / 1e6:.0f} MB")

    def image_bytes(self, name: str) -> int:
        return json.loads(self.podman("image", "inspect", name))[0]["Size"]


def main() -> int:
    """Builds the image of a target by hand: python tests/kubernetes/container_tools.py [cpu|gpu] [ARG=VALUE]..."""
    target = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    if target not in IMAGES:
        print(f"there is no target {target}: {' or '.join(IMAGES)}", file=sys.stderr)
        return 2
    stand_in = target == "gpu" and not any(pair.startswith("CUDA=") for pair in sys.argv[2:])
    reason = missing() or (missing_toolkit() if stand_in else None)
    if reason:
        print(reason, file=sys.stderr)
        return 1
    tools = ContainerTools(ROOT / "build/containers")
    if not tools.has_image(BASE_IMAGE):
        tools.make_base()
    arguments = {"BASE": BASE_IMAGE} | dict(pair.split("=", 1) for pair in sys.argv[2:])
    if stand_in:
        tools.make_cuda()
        arguments["CUDA"] = CUDA_IMAGE
    tools.build_and_tell(target, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
