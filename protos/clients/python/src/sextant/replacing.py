"""Files that take their place only once they are whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


def real_path(path: Path) -> Path:
    """The file behind `path`, whatever links lead there; it need not exist."""
    return Path(os.path.realpath(path))


def part_name(path: Path) -> Path:
    """Where `path` is written until it is whole: `x.safetensors.part`, beside the file a link leads to."""
    real = real_path(path)
    return real.with_name(f"{real.name}.part")


def is_special(path: Path) -> bool:
    """Whether it is a pipe or a device, as `/dev/stdout` and a shell's `>(...)` are."""
    try:
        return path.exists() and not path.is_file()
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write what becomes `path` when the block ends well; otherwise `path` stays as it was.

    What is meant for a pipe or a device goes there from a temporary file, which can be written in any order.
    """
    if is_special(path):
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder, "whole")
            yield whole
            with whole.open("rb") as source, path.open("wb") as sink:
                shutil.copyfileobj(source, sink)
        return
    part = part_name(path)
    try:
        yield part
        os.replace(part, real_path(path))
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
