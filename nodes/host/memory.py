"""Whether images fit the machine's memory."""

from __future__ import annotations

import psutil

from ...t2v_models.errors import T2VError


def images_that_fit(height: int, width: int) -> int:
    """Return how many images, (h, w, 3) in fp32, fit into nine tenths of the free memory."""
    return int(0.9 * psutil.virtual_memory().available // (height * width * 12))


def check_images(count: int, height: int, width: int, remedy: str) -> None:
    """Raise T2VError, with a remedy, where so many images would not fit the memory, before the first is made."""
    fits = images_that_fit(height, width)
    if count > fits:
        raise T2VError(
            f"{count} frames of {width}x{height} need {count * height * width * 12 / 1e9:.1f} GB as images, and {fits} "
            f"of them fit into the free memory: {remedy}."
        )
