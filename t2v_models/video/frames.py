"""Frames as arrays: from uint8, uint16 or float, NumPy or torch, to the numbers that ffmpeg gets."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import T2VError

log = logging.getLogger(__name__)


def to_array(frame: Any) -> np.ndarray:
    """Convert a frame, an (h, w, 3) array, or tensor on any device, to a NumPy array of that shape.

    Raises:
        T2VError: where the shape is another, or the numbers are not uint8, uint16 or float.
    """
    if hasattr(frame, "detach"):  # a torch tensor
        frame = frame.detach().cpu()
        frame = (frame.float() if frame.is_floating_point() else frame).numpy()
    array = np.asarray(frame)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise T2VError(f"A frame must have the shape (height, width, 3), not {tuple(array.shape)}.")
    if array.dtype not in (np.uint8, np.uint16) and array.dtype.kind != "f":
        raise T2VError(f"A frame must hold uint8, uint16 or float numbers from 0 to 1, not {array.dtype}.")
    return array


def quantize(array: np.ndarray, depth: int, report: Callable[[str], None] = log.warning) -> np.ndarray:
    """Round a frame, (h, w, 3) uint8, uint16 or float 0..1, to uint8 (depth 8) or uint16 (depth 16).

    report: called with a sentence where the frame holds NaN, which becomes black.
    """
    wanted = np.uint8 if depth == 8 else np.uint16
    if array.dtype == wanted:
        return array
    if array.dtype == np.uint8:
        return array.astype(np.uint16) * np.uint16(257)
    if array.dtype == np.uint16:
        return ((array.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    top = 255 if depth == 8 else 65535
    scaled = array.astype(np.float32) * np.float32(top)
    np.rint(scaled, out=scaled)
    np.clip(scaled, 0, top, out=scaled)
    if np.isnan(scaled.sum()):
        report("A frame holds NaN (no numbers): it is written as black.")
        np.nan_to_num(scaled, copy=False, nan=0.0)
    return scaled.astype(wanted)


def pad_to(array: np.ndarray, width: int, height: int) -> np.ndarray:
    """Repeat the last row and column of a frame until it has that size, such as an even one for 4:2:0."""
    h, w, _ = array.shape
    if (w, h) == (width, height):
        return array
    return np.pad(array, ((0, height - h), (0, width - w), (0, 0)), mode="edge")
