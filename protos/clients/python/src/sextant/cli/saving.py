"""Writes the files a command leaves and hears Ctrl-C meanwhile: the first is put off, a second gives up."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

import sextant
from sextant.cli import outputs
from sextant.cli.consoles import standard_error
from sextant.errors import SextantError, invalid
from sextant.replacing import part_name, real_path

_SETTLE_SECONDS = 5.0  # How long a capture may take to close after its call was cancelled.
_PATIENCE_SECONDS = 1.0  # What takes longer is named while it does, on a terminal.
_INTERRUPTED = 130


@dataclass(frozen=True)
class File:
    """One file that a flag asks for. path: as it was typed. save: writes it where it is told to."""

    kind: str  # Its suffix where the name does not say: "html", "png", "json", "safetensors".
    path: str
    save: Callable[[Path], object]
    partial: bool = False  # Not all that was asked for: its name says so.

    @property
    def name(self) -> str:
        """Where it goes, in words."""
        if self.path == outputs.STANDARD_OUTPUT:
            return "standard output"
        return str(self.place)

    @property
    def place(self) -> Path:
        """Where it goes."""
        return outputs.partial_name(self.path) if self.partial else Path(self.path)


def readings_files(
    lens: Callable[[], sextant.LensResult], options: argparse.Namespace, partial: str = ""
) -> Iterator[File]:
    """What the flags ask for. lens: called once the first is written. partial: why it is not all."""
    heatmap = functools.cache(lambda: lens().heatmap(partial=partial))
    if options.html:
        yield File("html", options.html, lambda path: heatmap().save(path), bool(partial))
    if options.png:
        theme = options.theme or "light"
        yield File("png", options.png, lambda path: heatmap().save(path, theme=theme), bool(partial))
    if options.json:
        yield File("json", options.json, lambda path: lens().save(path, partial=partial), bool(partial))


def partial_files(
    client: sextant.Client, out: sextant.Generation, options: argparse.Namespace, why: str
) -> Iterator[File]:
    """What the flags ask for, of a generation that did not end well."""
    received = out.received
    partial = f"{why} after {len(received.token_ids)} of at most {options.max_new_tokens} tokens"
    yield from readings_files(lambda: sextant.LensResult(received, client), options, partial)
    if options.save_capture:
        yield File("safetensors", options.save_capture, lambda path: _settled(client, out).save(path), True)


class Saving:
    """Writes files one after another. interrupted: whether Ctrl-C was pressed, before or meanwhile."""

    def __init__(self, console: Console, quiet: bool = False, interrupted: bool = False) -> None:
        self.interrupted = interrupted
        self._console = console
        self._quiet = quiet
        self._complaints = standard_error()
        self._name = ""  # What is being written now; the files it may leave, and what they were before.
        self._before: dict[Path, object] = {}

    def write(self, files: Iterable[File]) -> None:
        """Writes all of them and says which; then raises KeyboardInterrupt if that was pressed meanwhile."""
        before = self.interrupted
        with self._listening():
            for file in files:
                self._write(file)
        if self.interrupted and not before:
            raise KeyboardInterrupt("what was asked for is written")

    def write_what_arrived(self, files: Iterable[File]) -> None:
        """Writes partial files, and says which of them could not be."""
        files = list(files)
        with self._listening():
            if files and self.interrupted:
                names = ", ".join(file.name for file in files)
                self._say(f"interrupted; writing what arrived to {names} (Ctrl-C again gives it up)")
            for file in files:
                try:
                    self._write(file)
                except SextantError as error:
                    self._say(f"{file.name} could not be saved: {error}")

    def _write(self, file: File) -> None:
        standard = file.path == outputs.STANDARD_OUTPUT
        if not standard:
            self._before = {path: _state(path) for path in (real_path(file.place), part_name(file.place))}
        self._name = file.name
        try:
            self._wait_for(lambda: _to_standard_output(file) if standard else file.save(file.place))
        finally:  # A file that is finished is no longer given up.
            self._name, self._before = "", {}
        if not self._quiet and not standard:
            mark = " (partial)" if file.partial else ""
            self._console.print(Text.assemble(("wrote", "dim"), f" {file.name}{mark}"), soft_wrap=True)

    def _wait_for(self, work: Callable[[], object]) -> None:
        """Runs `work` on a thread: this one hears Ctrl-C at once, whatever library is at work there."""
        failures: list[BaseException] = []

        def run() -> None:
            try:
                work()
            except BaseException as failure:
                failures.append(failure)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(_PATIENCE_SECONDS)
        if thread.is_alive() and self._complaints.is_terminal:
            with self._complaints.status(Text(f"writing {self._name}")):
                thread.join()
        thread.join()
        if failures:
            raise failures[0]

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Hears Ctrl-C, unless this process was told to ignore it."""
        before = signal.getsignal(signal.SIGINT)
        if before != signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._hear)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _hear(self, *_: object) -> None:
        """The first Ctrl-C is put off; a second ends the process, for no thread can be stopped."""
        if not self.interrupted:
            self.interrupted = True
            now = f"still writing {self._name}" if self._name else "files are still to be written"
            self._say_at_once(f"interrupted; {now} (Ctrl-C again gives it up)")
            return
        for path, before in self._before.items():
            if path.is_file() and _state(path) != before:
                path.unlink()
        lost = f"; {self._name} is not written" if self._name else ""
        self._say_at_once(f"interrupted again{lost}")
        os._exit(_INTERRUPTED)

    def _say(self, text: str) -> None:
        self._complaints.print(text, style="yellow")

    def _say_at_once(self, text: str) -> None:
        """As a signal's handler may: whatever stream is being written to, this goes past it."""
        # A terminal's line may hold a spinner, and its cursor be hidden.
        begin = "\r\x1b[K\x1b[?25h" if self._complaints.is_terminal else ""
        os.write(2, f"{begin}{text}\n".encode(errors="backslashreplace"))


def _state(path: Path) -> object:
    """What tells whether a file was written to; None when there is none."""
    if not path.is_file():
        return None
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


def _to_standard_output(file: File) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"file.{file.kind}")
        file.save(path)
        sys.stdout.flush()
        sys.stdout.buffer.write(path.read_bytes())
        sys.stdout.buffer.flush()


def _settled(client: sextant.Client, out: sextant.Generation) -> sextant.Activations:
    """The rows of a call that was cut off, once its capture has closed."""
    name = out.received.capture
    if not name:
        raise invalid("NOTHING_CAPTURED", "the call ended before its capture was opened")
    deadline = time.monotonic() + _SETTLE_SECONDS
    while client.captures.info(name).state == "open" and time.monotonic() < deadline:
        time.sleep(0.1)
    return client.captures.get(name, out.received.options.capture)
