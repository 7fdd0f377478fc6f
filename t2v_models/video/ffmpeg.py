"""The ffmpeg program: find it, ask what it can do, run it."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import IO, cast

from ..errors import T2VError
from . import ffmpeg_text

log = logging.getLogger(__name__)

CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "gif", "webp_anim", "apng", "image2", "png_pipe", "webp_pipe",
    "jpeg_pipe", "mpegts", "mpeg", "mpegvideo", "flv", "asf", "ogg", "nut", "ivf", "h264", "hevc", "yuv4mpegpipe",
)  # fmt: skip
"""Demuxers that may open an unknown file. Playlists are left out: they would open other files and addresses."""

SAFE_INPUT = ("-protocol_whitelist", "file,pipe,fd", "-format_whitelist", ",".join(CONTAINERS))
"""Options before an input: local files only, of the formats in `CONTAINERS`."""


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


def abilities(kind: str) -> frozenset[str]:
    """Return the names of the "encoders", "decoders", "muxers" or "demuxers" of the ffmpeg in use."""
    return _abilities(ffmpeg_exe(), kind)


@functools.lru_cache(maxsize=16)
def _abilities(exe: str, kind: str) -> frozenset[str]:
    try:
        done = subprocess.run(
            [exe, "-hide_banner", f"-{kind}"], capture_output=True, stdin=subprocess.DEVNULL, check=False
        )
    except OSError as error:
        raise T2VError(
            f"ffmpeg at {exe} could not be started ({error}): set IMAGEIO_FFMPEG_EXE to one that runs."
        ) from error
    return ffmpeg_text.names(done.stdout.decode("utf-8", "replace"))


def file_url(path: Path | str) -> str:
    """Write a path as a URL for ffmpeg, so that "a:b.mp4" is no protocol and "-x.mp4" no option."""
    return "file:" + os.path.abspath(path)


class Process:
    """A running ffmpeg; its error output goes to a temporary file, so that a full pipe never blocks it.

    stdin, stdout: open a pipe to its input, and from its output.
    """

    def __init__(self, arguments: list[str], *, stdin: bool = False, stdout: bool = False):
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


def run(arguments: list[str]) -> tuple[int, bytes, str]:
    """Run ffmpeg to its end; returns (exit status, standard output, error output)."""
    process = Process(arguments, stdout=True)
    try:
        output = process.stdout.read()
        return process.finish(), output, process.stderr()
    finally:
        process.close()
