"""The ffmpeg program: find it, ask for its version and what it can do, run it."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import IO, TypeVar, cast

from ...errors import T2VError
from ...foreign import quoted
from ..engine import ASKED_EVERY, PROTOCOLS, Cancelled, Input
from . import text

log = logging.getLogger(__name__)

_OLDEST, _FPS_MODE, _STATS_PERIOD = (58, 54), (59, 37), (58, 134)
"""Versions of libavcodec: of ffmpeg 4.2, and of the first ffmpeg with -fps_mode (5.1) and with -stats_period (4.4)."""

_ANSWERS = 30
"""The most seconds in which an ffmpeg says its version, or what it can do."""

_T = TypeVar("_T")


def ffmpeg_exe() -> str:
    """Return ffmpeg's path: IMAGEIO_FFMPEG_EXE where it is set, else imageio-ffmpeg's, else the system's.

    Raises:
        T2VError: where IMAGEIO_FFMPEG_EXE names no program, or no ffmpeg is found.
    """
    with contextlib.suppress(ImportError, RuntimeError):
        import imageio_ffmpeg

        chosen = imageio_ffmpeg.get_ffmpeg_exe()  # it honours the variable, unchecked
        if found := shutil.which(chosen):
            return found
        raise T2VError(f"IMAGEIO_FFMPEG_EXE names {chosen!r}, which is no program: correct it, or unset it.")
    if found := shutil.which("ffmpeg"):
        return found
    raise T2VError(
        "No ffmpeg was found: pip install imageio-ffmpeg, then set IMAGEIO_FFMPEG_EXE if you want another one."
    )


def version(exe: str) -> tuple[int, int]:
    """Return (major, minor) of the libavcodec in the ffmpeg at exe; builds between two releases have a number, too.

    Raises:
        T2VError: where it cannot be started, is another program, or is older than 4.2.
    """
    said = _asked(exe, "-version")
    found = text.library_version(said)
    if not found and "ffmpeg" not in said:
        raise T2VError(f"The program at {exe} is no ffmpeg: set IMAGEIO_FFMPEG_EXE to one, or unset it.")
    if found and found < _OLDEST:
        raise T2VError(
            f"The ffmpeg at {exe} is too old (libavcodec {found[0]}.{found[1]}; ffmpeg 4.2 or newer is wanted): "
            "pip install --upgrade imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE to a newer one."
        )
    return found or (1000, 0)  # a build that names no libraries is taken for a new one


def every_frame() -> list[str]:
    """Return the options that keep every frame of an output, none dropped and none repeated."""
    return ["-fps_mode" if version(ffmpeg_exe()) >= _FPS_MODE else "-vsync", "passthrough"]


def statistics() -> list[str]:
    """Return the options that print errors, and at the end how many frames were written."""
    rarely = ["-stats_period", "60"] if version(ffmpeg_exe()) >= _STATS_PERIOD else []
    return ["-v", "error", "-stats", *rarely]


def abilities(kind: str) -> frozenset[str]:
    """Return the names of the "encoders", "decoders", "muxers" or "demuxers" of the ffmpeg in use."""
    return _abilities(ffmpeg_exe(), kind)


@functools.lru_cache(maxsize=16)
def _abilities(exe: str, kind: str) -> frozenset[str]:
    version(exe)
    return text.names(_asked(exe, f"-{kind}"))


@functools.lru_cache(maxsize=16)
def _asked(exe: str, option: str) -> str:
    """Return what an option such as -version prints.

    Raises:
        T2VError: where the program cannot be started, fails, or is not finished within `_ANSWERS` seconds.
    """
    command, remedy = [exe, "-hide_banner", option], "set IMAGEIO_FFMPEG_EXE to one that runs"
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False, timeout=_ANSWERS)
    except OSError as error:
        raise T2VError(f"ffmpeg at {exe} could not be started ({error}): {remedy}.") from error
    except subprocess.TimeoutExpired as error:
        raise T2VError(f"ffmpeg at {exe} does not answer {option} within {_ANSWERS} seconds: {remedy}.") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"status {done.returncode}"]
        raise T2VError(f"ffmpeg at {exe} does not run ({quoted(said[-1])}): {remedy}.")
    return done.stdout.decode("utf-8", "replace")


def chain(filters: Iterable[str]) -> str:
    """Write a chain of filters, in which a comma would end a filter."""
    return ",".join(filter.replace(",", "\\,") for filter in filters)


def input_options(input: Input) -> list[str]:
    """Return the options that open a file: local files only, of the formats in its list; "-i" and the URL included."""
    options = ["-protocol_whitelist", PROTOCOLS, "-format_whitelist", ",".join(input.demuxers)]
    if input.demuxer:
        options += ["-f", input.demuxer]
    for name, value in input.options:
        options += [f"-{name}", value]
    return [*options, "-i", input.url]


class Process:
    """A running ffmpeg; its error output goes to a temporary file, so that a full pipe never blocks it.

    stdin, stdout: open a pipe to its input, and from its output.
    cancelled: asked four times a second by `wait`; it raises to cancel.
    """

    def __init__(
        self, arguments: list[str], *, stdin: bool = False, stdout: bool = False, cancelled: Cancelled | None = None
    ):
        self._cancelled = cancelled
        self._threads: ThreadPoolExecutor | None = None
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        command = [ffmpeg_exe(), "-hide_banner", "-nostdin", "-y", *arguments]
        log.debug("%s", command)
        try:
            self.popen = subprocess.Popen(
                command,
                bufsize=0,
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE if stdout else subprocess.DEVNULL,
                stderr=self._log,
            )
        except OSError as error:
            self._log.close()
            raise T2VError(f"ffmpeg at {command[0]} could not be started: {error}") from error
        self._pipes = [pipe for pipe in (self.popen.stdin, self.popen.stdout) if pipe]
        for pipe in self._pipes:
            _widen(pipe)

    @property
    def stdout(self) -> io.FileIO:
        """The pipe from ffmpeg's output, of a process that was started with stdout=True."""
        return cast(io.FileIO, self.popen.stdout)  # bufsize is 0

    def wait(self, job: Callable[[], _T]) -> _T:
        """Return what job() returns, such as a read of ffmpeg's output.

        Where the user may cancel, it runs in a thread, and an exception of `cancelled` kills ffmpeg, which ends the job.
        """
        if self._cancelled is None:
            return job()
        self._threads = self._threads or ThreadPoolExecutor(1)
        future = self._threads.submit(job)
        try:
            self._cancelled()
            while not wait([future], ASKED_EVERY).done:
                self._cancelled()
        except BaseException:
            self.popen.kill()
            raise
        return future.result()

    def write(self, data: memoryview) -> None:
        """Write all bytes to ffmpeg's input; blocks while ffmpeg is busy. OSError where ffmpeg has ended."""
        stdin = cast(io.FileIO, self.popen.stdin)
        while data:
            data = data[stdin.write(data) :]

    def finish(self) -> int:
        """Close ffmpeg's input, wait for its end, return its exit status (less than 0: the signal that ended it)."""
        if self.popen.stdin:
            with contextlib.suppress(OSError):
                self.popen.stdin.close()
        return self.popen.wait()

    def stderr(self) -> str:
        """Return the error output so far, the last 4 MB of it."""
        if self._log.closed:
            return ""
        end = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, end - (4 << 20)))
        return self._log.read().decode("utf-8", "replace")

    def close(self) -> None:
        """Kill ffmpeg where it still runs, and free its pipes and its error output."""
        if self.popen.poll() is None:
            self.popen.kill()
        if self._threads:
            self._threads.shutdown()  # a killed ffmpeg's pipe has an end, so no thread reads on
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.close()
        self.popen.wait()
        self._log.close()


def _widen(pipe: IO[bytes]) -> None:
    """Give a pipe 1 MB where the system allows it: the two programs then switch less often."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, 1 << 20)


def run(arguments: list[str], *, most: int | None = None, cancelled: Cancelled | None = None) -> tuple[int, bytes, str]:
    """Run ffmpeg to its end; returns (exit status, standard output, error output).

    most: bytes of standard output after which ffmpeg is ended; the output then has one byte more.
    """
    process = Process(arguments, stdout=True, cancelled=cancelled)
    try:
        output = process.wait(lambda: _read(process.stdout, most))
        if most is not None and len(output) > most:
            process.popen.kill()
        status = process.wait(process.finish)
        return status, output, process.stderr()
    finally:
        process.close()


def _read(pipe: io.FileIO, most: int | None) -> bytes:
    """Read a pipe to its end, or one byte more than `most`."""
    with io.BufferedReader(pipe) as reader:
        return reader.read() if most is None else reader.read(most + 1)
