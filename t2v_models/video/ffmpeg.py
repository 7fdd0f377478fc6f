"""The ffmpeg program: where it is, what it can do, how it is started, and what it said when it failed."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import IO

from ..errors import T2VError

log = logging.getLogger(__name__)

CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "gif", "webp_anim", "apng", "image2", "png_pipe", "webp_pipe",
    "jpeg_pipe", "mpegts", "mpeg", "mpegvideo", "flv", "asf", "ogg", "nut", "ivf", "h264", "hevc", "yuv4mpegpipe",
)  # fmt: skip
"""Demuxers that are trusted with a stranger's file. Playlists are not: they would open other files and addresses."""

SAFE_INPUT = ("-protocol_whitelist", "file,pipe,fd", "-format_whitelist", ",".join(CONTAINERS))


def ffmpeg_exe() -> str:
    """Path of ffmpeg: IMAGEIO_FFMPEG_EXE where it is set, else the one imageio-ffmpeg brings, else the system's."""
    chosen = os.environ.get("IMAGEIO_FFMPEG_EXE")
    if chosen:
        if found := shutil.which(chosen):
            return found
        raise T2VError(f"IMAGEIO_FFMPEG_EXE names {chosen!r}, which is no program: correct it, or unset it.")
    with contextlib.suppress(ImportError, RuntimeError):
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    if found := shutil.which("ffmpeg"):
        return found
    raise T2VError("No ffmpeg was found: pip install imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE to one.")


def abilities(kind: str) -> frozenset[str]:
    """Names of the "encoders", "decoders", "muxers" or "demuxers" of the ffmpeg in use."""
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
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    # The head line of the table is " ------" or " ---"; every line after it is "FLAGS NAME title".
    rule = next((i for i, line in enumerate(lines) if line.strip() and not line.strip("- ")), -1)
    return frozenset(words[1] for line in lines[rule + 1 :] if len(words := line.split()) > 1)


def file_url(path: Path | str) -> str:
    """A path as ffmpeg must be given it, so that "a:b.mp4" is no protocol and "-x.mp4" no option."""
    return "file:" + os.path.abspath(path)


class Process:
    """A running ffmpeg; its error output goes to a temporary file, so that a full pipe never blocks it."""

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
        for pipe in (self.popen.stdin, self.popen.stdout):
            _widen(pipe)

    def write(self, data: memoryview) -> None:
        """All of data into ffmpeg's input; waits while ffmpeg is busy (back-pressure). OSError if it is gone."""
        while data:
            data = data[self.popen.stdin.write(data) :]

    def finish(self) -> int:
        """Close ffmpeg's input, wait for its end, return its exit status (negative: the signal that ended it)."""
        if self.popen.stdin:
            with contextlib.suppress(OSError):
                self.popen.stdin.close()
        return self.popen.wait()

    def kill(self) -> None:
        """End ffmpeg now, whatever it is doing. Harmless when it has ended."""
        if self.popen.poll() is None:
            self.popen.kill()
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
        self.popen.wait()

    def stderr(self) -> str:
        """What ffmpeg has written to its error output so far (the last 4 MB)."""
        if self._log.closed:
            return ""
        end = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, end - (4 << 20)))
        return self._log.read().decode("utf-8", "replace")

    def close(self) -> None:
        self.kill()
        self._log.close()


def _widen(pipe: IO[bytes] | None) -> None:
    """A pipe of 1 MB where the system allows it: fewer switches between the two programs."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        if pipe is not None:
            fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, 1 << 20)


def run(arguments: list[str]) -> tuple[int, bytes, str]:
    """Run ffmpeg to its end: (exit status, standard output, error output)."""
    process = Process(arguments, stdout=True)
    try:
        output = process.popen.stdout.read() if process.popen.stdout else b""
        return process.finish(), output, process.stderr()
    finally:
        process.close()


_NOISE = (
    "Last message repeated",
    "Conversion failed",
    "Task finished",
    "Terminating thread",
    "Error opening input files",
)


def error_message(stderr: str, status: int = 0) -> str:
    """The line of ffmpeg's error output that says why it failed, at most 300 characters."""
    if status < 0:
        return f"ffmpeg was ended from outside (signal {-status})"
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    lines = [line for line in lines if not any(noise in line for noise in _NOISE)]
    full = next((line for line in lines if "No space left" in line), None)
    if full:
        return "no space left on the disk"
    line = next(
        (line for line in reversed(lines) if "rror" in line or "nvalid" in line), lines[-1] if lines else "no reason"
    )
    return line.split("] ", 1)[-1][:300]
