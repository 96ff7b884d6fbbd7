"""Builds images with buildah and runs pods with podman, in a storage of its own, without a daemon or a registry."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
BASE_IMAGE = "localhost/debian:bookworm-slim"
# By target of deploy/Dockerfile.
IMAGES = {"cpu": "localhost/sextant:0.1.0", "gpu": "localhost/sextant-gpu:0.1.0"}
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


class ContainerTools:
    """buildah and podman with storage and settings in `folder`."""

    def __init__(self, folder: pathlib.Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        (folder / "containers.conf").write_text(SETTINGS)
        self.storage = ["--root", str(folder / "storage"), "--runroot", str(folder / "run")]
        self.environment = os.environ | {"CONTAINERS_CONF": str(folder / "containers.conf")}

    def _run(self, command: list[str], timeout_s: float, log: pathlib.Path | None = None) -> str:
        if log is not None:
            with open(log, "w") as out:
                code = subprocess.run(command, env=self.environment, stdout=out, stderr=out, timeout=timeout_s).returncode
            output = error = log.read_text(errors="replace")
        else:
            result = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=timeout_s)
            code, output, error = result.returncode, result.stdout, result.stderr
        if code != 0:
            raise ContainerError(f"{' '.join(command)}: exit status {code}\n" + "\n".join(error.splitlines()[-25:]))
        return output

    def podman(self, *arguments: str, timeout_s: float = 120) -> str:
        return self._run(["podman", *self.storage, "--network-config-dir", str(self.folder / "networks"), *arguments], timeout_s)

    def has_image(self, name: str) -> bool:
        command = ["podman", *self.storage, "image", "exists", name]
        return subprocess.run(command, env=self.environment, timeout=60).returncode == 0

    def make_base(self) -> None:
        """The image that stands for debian:bookworm-slim, out of this machine's apt mirror."""
        self._run([str(pathlib.Path(__file__).parent / "base_image"), *self.storage], timeout_s=600)

    def build(self, target: str, name: str, arguments: dict[str, str]) -> None:
        """Builds a target of deploy/Dockerfile; the whole output is in `folder`/build-TARGET.log."""
        options = [f"--build-arg={key}={value}" for key, value in arguments.items()]
        # This machine's own compile cache, if there is one, instead of an empty one of the build's.
        cache = pathlib.Path(os.environ.get("CCACHE_DIR", pathlib.Path.home() / ".cache/ccache"))
        if cache.is_dir():
            options.append(f"--volume={cache}:/ccache")
        self._run(["buildah", *self.storage, "bud", "--isolation", "chroot", "--format", "docker", "--layers", "--pull-never", *options, "--target", target,
                   "-f", str(ROOT / "deploy/Dockerfile"), "-t", name, str(ROOT)], timeout_s=3600, log=self.folder / f"build-{target}.log")

    def image_bytes(self, name: str) -> int:
        return json.loads(self.podman("image", "inspect", name))[0]["Size"]


def main() -> int:
    """Builds the image of a target by hand: python tests/kubernetes/container_tools.py [cpu|gpu]."""
    reason = missing()
    if reason:
        print(reason, file=sys.stderr)
        return 1
    target = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    tools = ContainerTools(ROOT / "build/containers")
    if not tools.has_image(BASE_IMAGE):
        tools.make_base()
    name = IMAGES[target]
    tools.build(target, name, {"BASE": BASE_IMAGE} | dict(pair.split("=", 1) for pair in sys.argv[2:]))
    print(f"{name}: {tools.image_bytes(name) / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
