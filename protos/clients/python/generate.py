"""Generates the protobuf and gRPC stubs `sextant.v1` from the protos of the repository.

Runs by itself while the package is built or installed; by hand: `python generate.py` (needs grpcio-tools).
The stubs are not committed: they are a function of the protos beside them and of one pinned generator.
"""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
PROTOS = HERE.parents[1]
PACKAGE = HERE / "src"
PUBLIC = ("types", "inference", "capture", "vector")


def generate() -> None:
    """Writes src/sextant/v1: message and service modules with type stubs, and the descriptors of google.rpc.

    Raises SystemExit when the protos or the generator are missing or the generator fails.
    """
    out = PACKAGE / "sextant" / "v1"
    if not (PROTOS / "sextant" / "v1").is_dir():
        if (out / "types_pb2.py").is_file():
            return  # A source distribution: the stubs came with it.
        raise SystemExit(f"the protos are not at {PROTOS}: build from a checkout of the Sextant repository")
    from grpc_tools import protoc  # Imported here: a source distribution needs no generator.

    well_known = str(Path(protoc.__file__).parent / "_proto")
    out.mkdir(parents=True, exist_ok=True)
    (out / "__init__.py").write_text(
        '"""Generated from protos/sextant/v1: the public protocol, as it is."""\n'
    )
    paths = [f"-I{PROTOS}", f"-I{well_known}"]
    targets = [f"--{kind}_out={PACKAGE}" for kind in ("python", "pyi", "grpc_python")]
    _run(protoc, [*paths, *targets, *(f"sextant/v1/{name}.proto" for name in PUBLIC)])
    # google.rpc goes in as descriptors for a private pool: generated modules would clash with
    # googleapis-common-protos, which registers the same file name.
    details = out / "error_details.binpb"
    _run(
        protoc,
        [*paths, "--include_imports", f"--descriptor_set_out={details}", "google/rpc/error_details.proto"],
    )


def _run(protoc, arguments: list[str]) -> None:
    if protoc.main(["protoc", *arguments]) != 0:
        raise SystemExit(f"protoc failed: {' '.join(arguments)}")


class BuildWithStubs(build_py):
    """setuptools' build_py, after the stubs are generated."""

    def run(self) -> None:
        """Generates, then builds; packages are looked up again because the stubs are one of them."""
        generate()
        if "sextant.v1" not in self.packages:
            self.packages = [*self.packages, "sextant.v1"]
        super().run()


if __name__ == "__main__":
    generate()
    print(f"stubs written to {PACKAGE / 'sextant' / 'v1'}", file=sys.stderr)
