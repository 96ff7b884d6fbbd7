"""Python's own refusals, of arguments and of files, told as SextantError."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from sextant.errors import SextantError, invalid

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def sending() -> Iterator[None]:
    """Around making a request: what it cannot hold is INVALID_ARGUMENT / BAD_ARGUMENT."""
    try:
        yield
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise invalid("BAD_ARGUMENT", f"an argument cannot be sent: {error}") from error


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Around reading a file: NOT_FOUND / FILE_NOT_FOUND, INVALID_ARGUMENT / FILE_NOT_READABLE."""
    try:
        yield
    except FileNotFoundError as error:
        raise SextantError("NOT_FOUND", "FILE_NOT_FOUND", f"there is no file {path}") from error
    except OSError as error:
        raise invalid("FILE_NOT_READABLE", f"cannot read {path}: {_why(error)}") from error
    except ValueError as error:
        if "null byte" not in str(error):
            raise
        raise invalid("FILE_NOT_READABLE", f"no file can be called {str(path)!r}") from error


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around writing a file: RESOURCE_EXHAUSTED / DISK_FULL or INVALID_ARGUMENT / OUTPUT_NOT_WRITABLE."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise SextantError("RESOURCE_EXHAUSTED", "DISK_FULL", f"no room for {path}") from error
        raise unwritable(path, _why(error)) from error
    except ValueError as error:
        if "null byte" not in str(error):
            raise
        raise invalid("OUTPUT_NOT_WRITABLE", f"no file can be called {str(path)!r}") from error


def unwritable(path: str | Path, why: str) -> SextantError:
    """A file that cannot be written where it was asked for."""
    return invalid("OUTPUT_NOT_WRITABLE", f"cannot write {path}: {why}")


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
