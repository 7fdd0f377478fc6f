"""How many images the machine's memory holds."""

from __future__ import annotations

import psutil

from ...t2v_models.errors import T2VError


def images_that_fit(height: int, width: int) -> int:
    """How many images, (h, w, 3) in fp32, nine tenths of the free memory hold."""
    return int(0.9 * psutil.virtual_memory().available // (height * width * 12))


def check_images(count: int, height: int, width: int, remedy: str) -> None:
    """Refuse what would have the machine swap, or end, before the first image is there."""
    fits = images_that_fit(height, width)
    if count > fits:
        raise T2VError(
            f"{count} frames of {width}x{height} need {count * height * width * 12 / 1e9:.1f} GB as images, and {fits} "
            f"of them fit into the free memory: {remedy}."
        )
