"""Read a video file frame by frame through ffmpeg; memory does not grow with the clip's length."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import cached_property

import numpy as np

from ..atomic_output import checked_path
from ..errors import T2VError
from .audio import Audio
from .colours import SCALER, colour_filters, report, tone_mapping
from .engine import Cancelled, Damaged
from .engines import engine
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
        cancelled: called four times a second while ffmpeg works; it raises to cancel, and the work ends.

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
        most = len(self) if self.info.variable else self.count
        frames = engine().frames(
            self._source.input, self._filters(), depth=self.depth, most=most, cancelled=self._cancelled
        )
        given, (width, height) = 0, self.size
        try:
            with contextlib.closing(frames):
                for frame in frames:
                    if frame.shape[:2] != (height, width):
                        raise T2VError(
                            f"Frame {given} of {self.path.name} has {frame.shape[1]}x{frame.shape[0]} pixels, the first "
                            f"{width}x{height}: set a width and a height for all."
                        )
                    given += 1
                    yield frame
            self._check(None, given)
        except Damaged as error:
            self._check(str(error), given)

    def _check(self, why: str | None, given: int) -> None:
        """Raise T2VError, or log a warning, where the file has faults, or no frame was returned."""
        if why is None and (given or self.fps is not None or not len(self)):
            if self.fps is None and not self.info.variable and given != len(self):
                # such as frames whose key frame was cut off
                log.warning("%s: %d frames were announced and %d are there.", self.path.name, len(self), given)
            return
        why = why or f"{len(self)} were announced"
        if self.strict or not given:
            raise T2VError(f"{self.path.name} is damaged: {why}; {given} frames could be read.")
        log.warning("%s is damaged: %s; %d frames were read.", self.path.name, why, given)

    def _filters(self) -> list[str]:
        """Return ffmpeg's filters from the file's frames to those that are returned."""
        info = self.info
        chain = colour_filters(info)
        if self.fps or info.variable:
            chain.append(f"fps={self.fps or info.fps}:round=near")
        if self.start or self.every > 1:
            chain.append(f"select=gte(n,{self.start})*not(mod(n-{self.start},{self.every}))")
        chain += tone_mapping(info)
        chain += [f"scale=flags={SCALER}", f"format={'rgb24' if self.depth == 8 else 'rgb48be'}"]
        if info.cropped_size != info.stored_size:
            chain.append("crop={}:{}:0:0:exact=1".format(*info.cropped_size))
        if self.size != info.cropped_size:
            chain.append("scale={}:{}:flags=lanczos+accurate_rnd+full_chroma_int".format(*self.size))
        return chain

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
        cut = ("asetpts=PTS-STARTPTS", "aresample=async=1:first_pts=0", f"atrim={span}")
        parts = engine().sound(self._source.input, info.audio_track, cut, self._cancelled)
        audio, why = _gathered(parts, self._seconds, silence, self.path.name)
        if why:
            log.warning("The sound of %s is damaged (%s): what could be decoded is used.", self.path.name, why)
        return audio


def _gathered(
    parts: Iterable[tuple[int, np.ndarray]], seconds: Fraction, silence: Fraction, name: str
) -> tuple[Audio | None, str | None]:
    """Gather the parts of a sound in memory that is asked for once.

    Args:
        parts: (samples a second, samples (n, channels) float32), as an engine gives them.
        seconds: the most that the sound lasts, `silence` included.
        silence: seconds of silence before it.
        name: the clip's name, for errors.

    Returns:
        The sound, None where there is none; and what is wrong with the file, None where nothing is.

    Raises:
        T2VError: where the memory does not hold the samples.
    """
    samples, given, rate = None, 0, 0
    why = None
    try:
        for rate, part in parts:
            if samples is None:
                given = round(silence * rate)
                samples = _room(part.shape[1], max(given, round(seconds * rate) + rate // 10), seconds, name)
            part = part[: samples.shape[1] - given]
            samples[:, given : given + len(part)] = part.T
            given += len(part)
    except Damaged as error:
        why = str(error)
    return (None if samples is None else Audio(samples[:, :given], rate)), why


def _room(channels: int, count: int, seconds: Fraction, name: str) -> np.ndarray:
    """Return an array of (channels, count) zeros; T2VError where the memory does not hold it."""
    try:
        return np.zeros((channels, count), np.float32)
    except (MemoryError, ValueError) as error:  # more than the memory holds, or than an array can have
        size = 4 * channels * count / 1e9
        raise T2VError(
            f"The sound of {name} needs {size:.1f} GB of memory ({channels} channels of {float(seconds):.0f} seconds), which "
            "are not free: read fewer frames."
        ) from error
