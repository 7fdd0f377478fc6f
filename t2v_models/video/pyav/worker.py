"""The thread in which ffmpeg's libraries work, so that a cancel is heard meanwhile, and work goes on while frames are used."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from ..engine import ASKED_EVERY, Cancelled

_T = TypeVar("_T")

_PATIENCE = 0.5
"""Seconds that a closing waits for a call which still runs. It ends by itself, and its memory is freed then."""


class Worker:
    """One thread, for all calls of one clip.

    cancelled: asked four times a second while a call runs; it raises to cancel.
    """

    def __init__(self, cancelled: Cancelled | None = None):
        self.stopped = threading.Event()
        """Set when the rest of the work is not wanted; long calls look at it."""
        self._cancelled, self._closed = cancelled, False
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="t2v-video")
        self._pending: Future[Any] | None = None

    def begin(self, job: Callable[[], object]) -> None:
        """Run a job beside the caller, after the last one has ended; raises what the last one raised."""
        self.settle()
        self._pending = self._pool.submit(job)

    def settle(self) -> None:
        """Wait for the job that was begun; raises what it raised."""
        pending, self._pending = self._pending, None
        if pending is not None:
            self._result(pending)

    def run(self, job: Callable[[], _T]) -> _T:
        """Return what a job returns."""
        self.settle()
        return self._result(self._pool.submit(job))

    def items(self, generator: Generator[_T, None, None]) -> Generator[_T, None, None]:
        """Yield what the generator yields; the next item is made while the caller uses one."""
        end = object()
        future = self._pool.submit(next, generator, end)
        try:
            while (item := self._result(future)) is not end:
                future = self._pool.submit(next, generator, end)
                yield item  # type: ignore[misc]
        finally:
            self.close(generator.close)

    def close(self, last: Callable[[], object] | None = None) -> None:
        """End the work; `last` frees what it used, after a call that still runs."""
        if self._closed:
            return
        self._closed = True
        self.stopped.set()
        try:
            if last is not None:
                wait([self._pool.submit(last)], _PATIENCE)
        except RuntimeError:  # Python ends, and no thread runs any more
            if last is not None:
                last()
        self._pool.shutdown(wait=False)

    def _result(self, future: Future[_T]) -> _T:
        if self._cancelled is not None:
            self._cancelled()
            while not wait([future], ASKED_EVERY).done:
                self._cancelled()
        return future.result()
