"""Whether images, latents and sound fit the machine's memory, found before the first byte is taken."""

from __future__ import annotations

import psutil

from ...t2v_models.errors import T2VError


def free_bytes() -> int:
    """Return nine tenths of the free memory, in bytes."""
    return int(0.9 * psutil.virtual_memory().available)


def check_bytes(needed: int, what: str, remedy: str) -> None:
    """Raise T2VError where so many bytes are not free. `what` begins the sentence, and `remedy` ends it."""
    free = free_bytes()
    if needed > free:
        raise T2VError(f"{what} takes {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free: {remedy}.")


def images_that_fit(height: int, width: int) -> int:
    """Return how many images, (h, w, 3) in fp32, fit into nine tenths of the free memory."""
    return free_bytes() // (height * width * 12)


def check_images(count: int, height: int, width: int, remedy: str) -> None:
    """Raise T2VError, with a remedy, where so many images would not fit the memory, before the first is made."""
    fits = images_that_fit(height, width)
    if count > fits:
        raise T2VError(
            f"{count} frames of {width}x{height} need {count * height * width * 12 / 1e9:.1f} GB as images, and {fits} "
            f"of them fit into the free memory: {remedy}."
        )
