"""Keeps Ctrl-C out of gRPC: calls run on a thread, and the caller waits where nothing is held.

KeyboardInterrupt is raised between any two steps of the main thread, also right after one of gRPC's locks was
taken; the channel then waits for that lock for ever, and with it every later call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


def call_apart(work: Callable[[], T]) -> T:
    """What `work` returns or raises. A KeyboardInterrupt meanwhile leaves it to end by itself."""
    if threading.current_thread() is not threading.main_thread():
        return work()
    done: SimpleQueue = SimpleQueue()
    threading.Thread(target=_answer, args=(work, done), name="sextant call", daemon=True).start()
    return _taken(done)


class StreamApart:
    """The messages of a stream, each read when it is asked for. Use from one thread at a time.

    Holds nothing but the stream, so that whoever owns this may go away; `close` ends the thread.
    """

    def __init__(self, responses: Iterator[Any]) -> None:
        self._wanted: SimpleQueue = SimpleQueue()
        self._read: SimpleQueue = SimpleQueue()
        arguments = (responses, self._wanted, self._read)
        threading.Thread(target=_serve, args=arguments, name="sextant stream", daemon=True).start()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self._wanted.put(True)
        return _taken(self._read)

    def close(self) -> None:
        """Nothing more will be asked for."""
        self._wanted.put(False)


def _serve(responses: Iterator[Any], wanted: SimpleQueue, read: SimpleQueue) -> None:
    while wanted.get() and _answer(lambda: next(responses), read):
        pass


def _answer(work: Callable[[], Any], to: SimpleQueue) -> bool:
    """Whether there was one; a stream that has ended or failed has no more."""
    try:
        to.put((work(), None))
        return True
    except BaseException as error:
        to.put((None, error))
        return False


def _taken(answers: SimpleQueue) -> Any:
    answer, error = answers.get()
    if error is not None:
        raise error
    return answer
