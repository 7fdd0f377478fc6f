"""Checks of the values that a caller gives for a video."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from typing import Any

from .errors import T2VError
from .video.frame_rate import frame_rate

log = logging.getLogger(__name__)


Progress = Callable[[int, int], None]
"""``progress(done, total)`` after every step; it may raise to cancel."""


MOST_FRAMES, LARGEST = 1_000_000, 16_384
"""A video's frames and pixels of a side: more is a slip of the finger."""


def checked_shape(
    pipeline: Any, count: int, frames: int | None, width: int | None, height: int | None
) -> tuple[int, ...]:
    """(count, 4, frames, height/8, width/8), the model's defaults where None; T2VError where that cannot be."""
    frames = pipeline.defaults.frames if frames is None else frames
    width = pipeline.defaults.width if width is None else width
    height = pipeline.defaults.height if height is None else height
    if not 1 <= frames <= MOST_FRAMES:
        raise T2VError(f"frames is {frames}: at least 1 is wanted and at most {MOST_FRAMES}.")
    for name, size in (("width", width), ("height", height)):
        if size > LARGEST:
            raise T2VError(f"{name} is {size}: at most {LARGEST} is possible.")
        if size < 8 or size % 8:
            raise T2VError(f"{name} is {size}: a multiple of 8 is wanted, {max(8, round(size / 8) * 8)} for one.")
    return (count, pipeline.unet.config.out_channels, frames, height // 8, width // 8)


def is_guided(pipeline: Any, scale: float) -> bool:
    """Whether the model is asked for the negative prompt's prediction, too."""
    return scale != 1 and not pipeline.unet.config.guidance_dim


def warn_of_unused(negatives: Iterable[Any], pipeline: Any, scale: float) -> None:
    """Log that negative prompts are given in vain: no fault, since scales are tried in turn with all else as it is."""
    if any(negatives) and not is_guided(pipeline, scale):
        built_in = pipeline.unet.config.guidance_dim
        why = "this model has its guidance built in" if built_in else "a guidance scale of 1 switches guidance off"
        log.warning("The negative prompt is not used: %s.", why)


def checked_rate(fps: float | None, own: float) -> float:
    """The frame rate, the model's own where None, if it is one."""
    fps = own if fps is None else fps
    frame_rate(fps)
    return fps


def checked_seed(seed: int, videos: int = 1) -> int:
    """The seed, if generators take it and those that follow it."""
    if not -(2**63) <= seed <= 2**64 - videos:
        raise T2VError(f"seed is {seed}: a whole number from 0 to 2^64 - 1 is wanted, such as 42.")
    return seed


def checked_scale(scale: float) -> float:
    """The guidance scale, if it is a number."""
    if not math.isfinite(scale):
        raise T2VError(f"The guidance scale is {scale}: a number is wanted, 1 for no guidance, 3 to 15 as a rule.")
    return scale


def checked_steps(steps: int) -> int:
    """The number of denoising steps, if it is one."""
    if not 1 <= steps <= 1000:
        raise T2VError(f"steps is {steps}: a number from 1 to 1000 is wanted.")
    return steps
