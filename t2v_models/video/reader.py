"""Read a video file frame by frame through ffmpeg; memory does not grow with the clip's length."""

from __future__ import annotations

import io
import logging
import math
import os
import struct
from collections.abc import Iterator
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np

from ..errors import T2VError
from . import ffmpeg, ffmpeg_text
from .audio import Audio
from .formats import SCALER
from .frame_rate import frame_rate
from .probe import VideoInfo, delay, open_source, probe

log = logging.getLogger(__name__)


class VideoReader:
    """Iterate over a clip's frames, (h, w, 3) uint8.

    >>> for frame in VideoReader("clip.mp4", every=2, size=(320, 0)):
    ...     print(frame.shape)

    Args:
        path: a video file, or a folder of numbered PNG frames.
        fps: drop or repeat frames to reach this many frames a second; None keeps the file's rate.
        start: frames to skip, at the rate `fps`.
        count: the most frames to return; None returns all.
        every: return each frame whose number, after `start`, is a multiple of this.
        size: (width, height) to scale to; where one of them is 0, it follows from the other and the clip's shape.
        depth: 16 returns uint16 frames.
        strict: raise T2VError after the last good frame of a damaged file; False returns what can be read.

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
    ):
        for name, value, least in (("start", start, 0), ("every", every, 1), ("count", count, 1), ("depth", depth, 8)):
            if value is not None and value < least:
                raise T2VError(f"{name} is {value}: {least} is the least that is possible.")
        if size is not None and (len(size) != 2 or min(size) < 0 or not any(size)):
            raise T2VError(f"size is {size}: it must be (width, height), where one of them may be 0 to keep the shape.")
        self.path = Path(os.path.abspath(path))
        self.fps = None if fps is None else frame_rate(fps)
        self.start, self.count, self.every, self.depth, self.strict = start, count, every, depth, strict
        self._size = size
        self._source = open_source(self.path, strict=strict)

    @cached_property
    def info(self) -> VideoInfo:
        """The file's size, rate, frame count, sound and metadata, whatever fps, start, every, count and size are."""
        return probe(self._source)

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
        code = ["-map", "0:v:0", "-vf", self._filters(), "-fps_mode", "passthrough"]
        code += [] if self.count is None else ["-frames:v", str(self.count)]
        code += ["-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24" if self.depth == 8 else "rgb48be", "pipe:1"]
        process = ffmpeg.Process(["-v", "error", *self._source.input, *code], stdout=True)
        given = 0
        try:
            with io.BufferedReader(process.stdout, 1 << 16) as pipe:
                while (frame := self._read(pipe)) is not None:
                    given += 1
                    yield frame
                self._check(process.finish(), process.stderr(), given)
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
            if self.fps is None and given != len(self):  # such as frames whose key frame was cut off
                log.warning("%s: %d frames were announced and %d are there.", self.path.name, len(self), given)
            return
        why = ffmpeg_text.error_message(stderr, status) if failed else f"{len(self)} were announced"
        if self.strict or not given:
            raise T2VError(f"{self.path.name} is damaged: {why}; {given} frames could be read.")
        log.warning("%s is damaged: %s; %d frames were read.", self.path.name, why, given)

    def _filters(self) -> str:
        info, chain = self.info, []
        if info.colour is None and info.pixels.startswith("yuv") and info.height >= 720:
            chain.append("setparams=colorspace=bt709")  # as in players, where a file names no matrix
        if self.fps:
            chain.append(f"fps={self.fps}:round=near")
        if self.start or self.every > 1:
            chain.append(f"select='gte(n,{self.start})*not(mod(n-{self.start},{self.every}))'")
        chain += [f"scale=flags={SCALER}", f"format={'rgb24' if self.depth == 8 else 'rgb48be'}"]
        if (info.width, info.height) != info.stored_size:
            chain.append(f"crop={info.width}:{info.height}:0:0:exact=1")
        if self.size != (info.width, info.height):
            chain.append("scale={}:{}:flags=lanczos+accurate_rnd+full_chroma_int".format(*self.size))
        return ",".join(chain)

    def audio(self) -> Audio | None:
        """Read the sound that belongs to the frames that are returned; None where the file has none.

        Raises:
            T2VError: where the sound cannot be read.
        """
        if self.info.audio is None:
            return None
        source_rate = self.fps or self.info.fps
        begin, length = self.start / source_rate, len(self) * self.every / source_rate
        begin += delay(self._source)
        silence = min(max(-begin, Fraction(0)), length)  # where the picture begins before the sound
        span = f"start={float(max(begin, Fraction(0))):.6f}:duration={float(length - silence):.6f}"
        cut = f"asetpts=PTS-STARTPTS,aresample=async=1:first_pts=0,atrim={span}"
        # without the file's tags: a WAV has them before its samples
        code = ["-map", "0:a:0", "-map_metadata", "-1", "-af", cut, "-c:a", "pcm_f32le", "-f", "wav", "pipe:1"]
        status, data, stderr = ffmpeg.run(["-v", "error", *self._source.input, *code])
        if status or (self.strict and stderr.strip()):
            raise T2VError(
                f"The sound of {self.path.name} could not be read: {ffmpeg_text.error_message(stderr, status)}."
            )
        audio = _wav(data)
        padded = np.pad(audio.samples, ((0, 0), (round(silence * audio.rate), 0)))
        return Audio(padded, audio.rate)


def _wav(data: bytes) -> Audio:
    """Parse a WAV file of float32 samples."""
    at = data.index(b"fmt ") + 8
    channels, rate = struct.unpack_from("<HI", data, at + 2)
    begin = data.index(b"data", at) + 8  # the chunk's name and its length
    count = (len(data) - begin) // (4 * channels)
    return Audio(np.frombuffer(data, "<f4", count * channels, begin).reshape(count, channels).T.copy(), rate)
