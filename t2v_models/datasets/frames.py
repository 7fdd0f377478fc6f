"""Frames of a clip by time."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from ..errors import T2VError
from ..video import VideoReader
from .clips import Clip

_EXACT = 1_000_000
"""Seconds are exact to a millionth."""


@dataclass(frozen=True, eq=False)
class Example:
    """What a model learns from."""

    frames: np.ndarray
    """(t, h, w, 3) uint8."""
    caption: str
    fps: float
    source: str
    """The file and the second at which it begins."""


def exact(value: float) -> Fraction:
    """Return seconds, or frames a second, as the simple fraction that a float stands for, such as 30000/1001."""
    return Fraction(value).limit_denominator(_EXACT)


def read_frames(
    clip: Clip, fps: float | None = None, count: int | None = None, size: tuple[int, int] | None = None
) -> tuple[np.ndarray, float]:
    """Read frames by time: frame k is the one that the video shows k / fps seconds after the clip's start.

    Args:
        clip: which part of which file.
        fps: frames a second; the file's own where None.
        count: the most frames.
        size: (width, height) that the frames cover, cut at their middle; None keeps the file's.

    Returns:
        Frames (t, h, w, 3) uint8, fewer than `count` where the clip ends, and their rate.

    Raises:
        T2VError: where the file is damaged or missing, or the clip holds no frame.
    """
    if fps is not None and not 0 < fps < math.inf:
        raise T2VError(f"fps is {fps}: a number above 0 is wanted.")
    probed = VideoReader(clip.file)
    own = probed.info.fps
    rate = own if fps is None else exact(fps)
    numbers = _numbers(clip, own, rate, count, len(probed))
    if not numbers:
        raise T2VError(f"{clip.file} has no frame from {clip.start:g} s on: it lasts {float(len(probed) / own):.3g} s.")
    scale = None if size is None else cover(probed.size, size)
    reader = VideoReader(clip.file, start=numbers[0], count=numbers[-1] - numbers[0] + 1, size=scale, strict=False)
    frames: list[np.ndarray] = []
    source: Any = iter(reader)
    with contextlib.closing(source):
        for number, frame in enumerate(source, numbers[0]):
            while len(frames) < len(numbers) and numbers[len(frames)] == number:
                frames.append(frame if size is None else _middle(frame, size))
    if not frames:
        raise T2VError(f"{clip.file} has no frame from {clip.start:g} s on.")
    return np.stack(frames), float(rate)


def _numbers(clip: Clip, own: Fraction, rate: Fraction, count: int | None, total: int) -> list[int]:
    """Return the numbers, in the file, of the frames that are shown at each time."""
    start = exact(clip.start)
    end = min(Fraction(total) / own, exact(clip.end)) if clip.end is not None else Fraction(total) / own
    most = math.ceil((end - start) * rate)
    wanted = max(0, most if count is None else min(count, most))
    return [math.floor((start + k / rate) * own) for k in range(wanted)]


def cover(size: tuple[int, int], wanted: tuple[int, int]) -> tuple[int, int]:
    """Return the (width, height) to which a picture is scaled so that it just covers another size."""
    scale = max(Fraction(w, s) for w, s in zip(wanted, size, strict=True))
    width, height = (max(w, round(s * scale)) for w, s in zip(wanted, size, strict=True))
    return width, height


def _middle(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    top, left = (frame.shape[0] - size[1]) // 2, (frame.shape[1] - size[0]) // 2
    return frame[top : top + size[1], left : left + size[0]]
