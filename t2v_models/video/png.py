"""A picture beside a clip, for the formats that hold no workflow."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .atomic_output import AtomicOutput
from .frames import quantize, to_array
from .metadata import png_chunk, png_text_chunks


def still_png(path: str | os.PathLike[str], frame: Any, texts: Mapping[str, str], *, overwrite: bool = False) -> Path:
    """A PNG of one frame, (h, w, 3), that holds texts; whole or not at all, over an older file only if asked to."""
    pixels = quantize(to_array(frame), 8)
    height, width, _ = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)  # 0: no filter
    place = AtomicOutput(Path(os.path.abspath(path)), overwrite=overwrite)
    try:
        with open(place.folder / "still.png", "wb") as file:
            file.write(b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)))
            file.write(png_text_chunks(texts))
            file.write(png_chunk(b"IDAT", zlib.compress(rows.tobytes(), 6)) + png_chunk(b"IEND", b""))
        return place.publish("still.png")
    finally:
        place.remove()
