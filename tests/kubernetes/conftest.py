"""Images for the tests that run containers, each built once in a session."""

import os
import time
from collections.abc import Iterator

import pytest
from container_tools import BASE_IMAGE, IMAGES, ROOT, ContainerTools, missing
from outside import MODEL


@pytest.fixture(scope="session")
def tools() -> Iterator[ContainerTools]:
    """buildah and podman, and the base image made anew; at the end, images that a newer one has replaced go."""
    if os.environ.get("SEXTANT_TEST_SET") != "long":
        pytest.skip("containers are built and run in tests/run --long")
    reason = missing()
    if reason:
        pytest.skip(reason)
    made = ContainerTools(ROOT / "build/containers")
    start = time.monotonic()
    made.make_base()
    print(f"\nbase image: {time.monotonic() - start:.0f} s, {made.image_bytes(BASE_IMAGE) / 1e6:.0f} MB")
    yield made
    made.podman("image", "prune", "--force", timeout_s=600)


@pytest.fixture(scope="session")
def cpu_image(tools: ContainerTools) -> str:
    """For tests that run the quickstart's model in it, which is why that has to be there."""
    if not MODEL.exists():
        pytest.skip(f"no model at {MODEL}: deploy/setup model")
    tools.build_and_tell("cpu", {"BASE": BASE_IMAGE})
    return IMAGES["cpu"]
