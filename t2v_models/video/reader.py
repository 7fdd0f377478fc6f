"""Read a video file frame by frame through ffmpeg; memory does not grow with the clip's length."""

from __future__ import annotations

import io
import logging
import math
import os
from collections.abc import Iterator
from fractions import Fraction
from functools import cached_property

import numpy as np

from ..atomic_output import checked_path
from ..errors import T2VError
from . import ffmpeg, ffmpeg_text
from .audio import Audio, read_wav
from .colours import SCALER, colour_filters, report, tone_mapping
from .ffmpeg import Cancelled
from .frame_rate import frame_rate
from .probe import VideoInfo, probe
from .source import open_source

log = logging.getLogger(__name__)


class VideoReader:
    """Iterate over a clip's frames, (h, w, 3) uint8.

    >>> for frame in VideoReader("clip.mp4", every=2, size=(320, 0)):
    ...     print(frame.shape)

    Args:
        path: a video file, or a folder of numbered PNG, JPEG or WebP pictures.
        fps: drop or repeat frames to reach this many frames a second; None keeps the file's rate.
        start: frames to skip, at the rate `fps`.
        count: the most frames to return; None returns all.
        every: return each frame whose number, after `start`, is a multiple of this.
        size: (width, height) to scale to; where one of them is 0, it follows from the other and the clip's shape.
        depth: 16 returns uint16 frames.
        strict: raise T2VError after the last good frame of a damaged file; False returns what can be read.
        cancelled: called four times a second while ffmpeg works; it raises to cancel, and ffmpeg is killed.

    Raises:
        FileNotFoundError, PermissionError: where the file cannot be opened.
        T2VError: where an argument is impossible, or the file is no video or cut off.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        fps: float | str | Fraction | None = None,
        start: int = 0,
        count: int | None = None,
        every: int = 1,
        size: tuple[int, int] | None = None,
        depth: int = 8,
        strict: bool = True,
        cancelled: Cancelled | None = None,
    ):
        for name, value, least in (("start", start, 0), ("every", every, 1), ("count", count, 1), ("depth", depth, 8)):
            if value is not None and value < least:
                raise T2VError(f"{name} is {value}: {least} is the least that is possible.")
        if size is not None and (len(size) != 2 or min(size) < 0 or not any(size)):
            raise T2VError(f"size is {size}: it must be (width, height), where one of them may be 0 to keep the shape.")
        self.path = checked_path(path)
        self.fps = None if fps is None else frame_rate(fps)
        self.start, self.count, self.every, self.depth, self.strict = start, count, every, depth, strict
        self._size, self._cancelled = size, cancelled
        self._source = open_source(self.path, strict=strict)

    @cached_property
    def info(self) -> VideoInfo:
        """The file's size, rate, frame count, sound and metadata, whatever fps, start, every, count and size are."""
        info = probe(self._source, self._cancelled)
        report(self.path, info)
        return info

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the frames that are returned."""
        width, height = self.info.width, self.info.height
        if self._size is None:
            return width, height
        w, h = self._size
        return w or max(1, round(h * width / height)), h or max(1, round(w * height / width))

    @property
    def rate(self) -> Fraction:
        """Frames a second of the frames that are returned."""
        return (self.fps or self.info.fps) / self.every

    def __len__(self) -> int:
        """Count the frames that are returned (an estimate where fps is changed)."""
        total = self.info.frame_count
        if self.fps:  # halves go up, as in ffmpeg
            total = math.floor(total / self.info.fps * self.fps + Fraction(1, 2))
        wanted = max(0, math.ceil((total - self.start) / self.every))
        return wanted if self.count is None else min(wanted, self.count)

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._frames()

    def _frames(self) -> Iterator[np.ndarray]:
        # Frames are counted, not timed: ffmpeg refuses two that fall into one unit of time. Where their size changes it
        # begins its filters anew, and the count with them: so each count starts behind the time of its first frame.
        count = r"setpts=N+if(gt(STARTT\,0)\,floor(STARTT*1000000))"
        code = ["-map", "0:v:0", "-vf", f"{self._filters()},settb=1/1000,{count}", "-enc_time_base", "1:1000"]
        code += ffmpeg.every_frame()
        most = len(self) if self.info.variable else self.count
        code += [] if most is None else ["-frames:v", str(most)]
        code += ["-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24" if self.depth == 8 else "rgb48be", "pipe:1"]
        command = ["-v", "error", *self._source.input, *code]
        process = ffmpeg.Process(command, stdout=True, cancelled=self._cancelled)
        given, (width, height) = 0, self.size
        try:
            with io.BufferedReader(process.stdout, 1 << 16) as pipe:
                while (frame := process.wait(lambda: self._read(pipe))) is not None:
                    if frame.shape[:2] != (height, width):
                        raise T2VError(
                            f"Frame {given} of {self.path.name} has {frame.shape[1]}x{frame.shape[0]} pixels, the first "
                            f"{width}x{height}: set a width and a height for all."
                        )
                    given += 1
                    yield frame
                self._check(process.wait(process.finish), process.stderr(), given)
        finally:
            process.close()

    def _read(self, pipe: io.BufferedReader[io.FileIO]) -> np.ndarray | None:
        """Read one portable pixmap, "P6 width height 255" and the pixels -> (h, w, 3); None at the end."""
        head = [pipe.readline(32) for _ in range(3)]
        if not head[2]:
            return None
        width, height = map(int, head[1].split())
        frame = np.empty((height, width, 3), np.uint8 if self.depth == 8 else np.dtype(">u2"))
        if pipe.readinto(frame.view(np.uint8).data) < frame.nbytes:
            return None
        return frame if self.depth == 8 else frame.astype(np.uint16)

    def _check(self, status: int, stderr: str, given: int) -> None:
        """Raise T2VError, or log a warning, where ffmpeg reported an error or returned no frame."""
        failed = bool(status or stderr.strip())
        if not failed and (given or self.fps is not None or not len(self)):
            if (
                self.fps is None and not self.info.variable and given != len(self)
            ):  # such as frames whose key frame was cut off
                log.warning("%s: %d frames were announced and %d are there.", self.path.name, len(self), given)
            return
        why = ffmpeg_text.error_message(stderr, status) if failed else f"{len(self)} were announced"
        if self.strict or not given:
            raise T2VError(f"{self.path.name} is damaged: {why}; {given} frames could be read.")
        log.warning("%s is damaged: %s; %d frames were read.", self.path.name, why, given)

    def _filters(self) -> str:
        info = self.info
        chain = colour_filters(info)
        if self.fps or info.variable:
            chain.append(f"fps={self.fps or info.fps}:round=near")
        if self.start or self.every > 1:
            chain.append(f"select='gte(n,{self.start})*not(mod(n-{self.start},{self.every}))'")
        chain += tone_mapping(info)
        chain += [f"scale=flags={SCALER}", f"format={'rgb24' if self.depth == 8 else 'rgb48be'}"]
        if info.cropped_size != info.stored_size:
            chain.append("crop={}:{}:0:0:exact=1".format(*info.cropped_size))
        if self.size != info.cropped_size:
            chain.append("scale={}:{}:flags=lanczos+accurate_rnd+full_chroma_int".format(*self.size))
        return ",".join(chain)

    @property
    def audio_bytes(self) -> int:
        """Bytes of the samples that `audio` returns; 0 where the file has no sound."""
        info = self.info.audio
        return 4 * info.channels * math.ceil(self._seconds * info.rate) if info else 0

    @property
    def _seconds(self) -> Fraction:
        """Seconds of the frames that are returned."""
        return len(self) * self.every / (self.fps or self.info.fps)

    def audio(self) -> Audio | None:
        """Read the sound that belongs to the frames that are returned; None where the file has none that can be decoded.

        Errors in the sound are logged, and what could be decoded is returned: they do not cost the pictures.

        Raises:
            T2VError: where the memory does not hold the samples.
        """
        info = self.info
        if info.audio is None:
            return None
        begin = self.start / (self.fps or info.fps) + info.picture_delay
        silence = min(max(-begin, Fraction(0)), self._seconds)  # where the picture begins before the sound
        span = f"start={float(max(begin, Fraction(0))):.6f}:duration={float(self._seconds - silence):.6f}"
        cut = f"asetpts=PTS-STARTPTS,aresample=async=1:first_pts=0,atrim={span}"
        # without the file's tags: a WAV has them before its samples
        track = ["-map", f"0:a:{info.audio_track}", "-map_metadata", "-1"]
        code = [*track, "-af", cut, "-c:a", "pcm_f32le", "-f", "wav", "pipe:1"]
        command = ["-v", "error", *self._source.input, *code]
        process = ffmpeg.Process(command, stdout=True, cancelled=self._cancelled)
        try:
            with io.BufferedReader(process.stdout, 1 << 16) as pipe:
                audio = read_wav(pipe, self._seconds, silence, process.wait, self.path.name)
            status, stderr = process.wait(process.finish), process.stderr()
        finally:
            process.close()
        if status or stderr.strip():
            why = ffmpeg_text.error_message(stderr, status)
            log.warning("The sound of %s is damaged (%s): what could be decoded is used.", self.path.name, why)
        return audio
