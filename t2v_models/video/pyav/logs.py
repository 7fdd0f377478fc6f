"""What ffmpeg's libraries report: caught for our own calls, and kept off the terminal."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator

import av
import av.logging

from .. import ffmpeg_text
from ..engine import Failed

ERROR, INFO = av.logging.ERROR, av.logging.INFO

_lock = threading.Lock()
_levels: list[int] = []
"""The levels of all catches that are open, in whatever thread."""


class Messages:
    """Messages of the calls that are made inside `caught`, in the thread that makes them.

    PyAV's settings are those of the whole process, so they hold during such a call only: outside of it, other users of PyAV
    find their own.
    """

    def __init__(self) -> None:
        self._lines: list[tuple[int, str, str]] = []
        self._raised = ""
        self.stream: int | None = None
        """The number of the stream that is read: what is said of others is no error of it. None for all of them."""

    @contextlib.contextmanager
    def caught(self, level: int = ERROR) -> Iterator[None]:
        """Catch what is reported down to this level."""
        with _loud(level), av.logging.Capture(local=True) as lines:
            try:
                yield
            finally:
                self._lines += lines

    def note(self, error: Exception) -> None:
        """Note an error that was raised; ffmpeg may have reported its cause before."""
        self._raised = self._raised or str(getattr(error, "strerror", None) or error) or type(error).__name__

    @property
    def errors(self) -> str:
        """The messages of errors, as the program prints them; where there are none, the first error that was raised."""
        if "No space left" in self._raised:
            return self._raised
        return (
            _printed([line for line in self._lines if line[0] <= ERROR and not self._of_another(line[2])])
            or self._raised
        )

    def _of_another(self, message: str) -> bool:
        named = re.match(r"stream (\d{1,6}), offset ", message)
        return named is not None and self.stream is not None and int(named[1]) != self.stream

    @property
    def text(self) -> str:
        """All messages, as the program prints them."""
        return _printed(self._lines)

    def failed(self, error: Exception | None = None) -> Failed:
        """Return the failure whose cause is in the messages, or else the error."""
        if error is not None:
            self.note(error)
        return Failed(ffmpeg_text.error_message(self.errors))


@contextlib.contextmanager
def _loud(level: int) -> Iterator[None]:
    """Let PyAV hand on messages down to a level, repeated ones too; those of other threads are dropped meanwhile."""
    global _before
    with _lock:
        if not _levels:
            _before = (av.logging.get_level(), av.logging.get_skip_repeated(), av.logging.Capture(local=False))
            _before[2].__enter__()
            av.logging.set_skip_repeated(False)
        _levels.append(level)
        av.logging.set_level(max(_levels))
    try:
        yield
    finally:
        with _lock:
            _levels.remove(level)
            if _levels:
                av.logging.set_level(max(_levels))
            else:
                av.logging.set_level(_before[0])
                av.logging.set_skip_repeated(_before[1])
                _before[2].__exit__(None, None, None)


_before: tuple[int | None, bool, av.logging.Capture]


def _printed(lines: list[tuple[int, str, str]]) -> str:
    """Write messages with the names of the parts that report them, where a line begins."""
    parts, fresh = [], True
    for _, name, message in lines:
        parts.append(f"[{name} @ 0x0] {message}" if fresh else message)
        fresh = message.endswith("\n")
    return "".join(parts)
