"""Animated WebP for an ffmpeg without a demuxer of it: Pillow decodes the frames."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np

if TYPE_CHECKING:
    from PIL import Image

TICK = Fraction(1, 1000)
"""Seconds of a WebP's unit of time."""


_MOST_PARTS = 1_000_000
"""Chunks of a file that are looked at."""


def durations(path: Path) -> list[int]:
    """Return how long every frame is shown, in thousandths of a second, from the file's chunks."""
    found = []
    with open(path, "rb") as file:
        file.seek(12)
        for _ in range(_MOST_PARTS):
            if len(head := file.read(8)) < 8:
                break
            size = int.from_bytes(head[4:], "little")
            if head[:4] == b"ANMF":
                found.append(int.from_bytes(file.read(16)[12:15], "little"))
                size -= 16
            file.seek(max(0, size) + size % 2, 1)
    return found


def frames(path: Path) -> Iterator[av.VideoFrame]:
    """Yield the frames, on whole canvases, with their times; raises OSError, ValueError or EOFError."""
    time = 0
    with _opened(path) as image:
        for index, duration in enumerate(durations(path)):
            image.seek(index)
            pixels = np.asarray(image.convert("RGBA" if "A" in image.getbands() else "RGB"))
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba" if pixels.shape[2] == 4 else "rgb24")
            frame.pts, frame.time_base = time, TICK
            time += duration
            yield frame


def _opened(path: Path) -> Image.Image:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # ffmpeg's limit is checked in its place
        try:
            return Image.open(_whole(path), formats=("WEBP",))
        except Image.DecompressionBombError as error:
            raise ValueError(str(error)) from error


def _whole(path: Path) -> Path | io.BytesIO:
    """Return a file; of one that is cut off, its whole chunks in memory."""
    with open(path, "rb") as file:
        size, length = path.stat().st_size, int.from_bytes(file.read(8)[4:], "little") + 8
        if length <= size:
            return path
        file.seek(0)
        data = bytearray(file.read())
    end = 12
    for _ in range(_MOST_PARTS):
        chunk = int.from_bytes(data[end + 4 : end + 8], "little") + 8
        if len(data) < end + 8 or end + chunk > len(data):
            break
        end += chunk + chunk % 2
    data = data[:end].ljust(end, b"\0")  # the byte that pads the last chunk may be missing
    data[4:8] = (len(data) - 8).to_bytes(4, "little")
    return io.BytesIO(data)
