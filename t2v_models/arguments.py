"""Checks of the values that a caller gives for a video."""

from __future__ import annotations

import logging
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol

from .errors import T2VError, shortened
from .video.frame_rate import frame_rate

if TYPE_CHECKING:
    from .families import Defaults
    from .unet import UNetConfig

log = logging.getLogger(__name__)


Progress = Callable[[int, int], None]
"""``progress(done, total)`` after every step; it may raise to cancel."""


MOST_FRAMES, LARGEST = 1_000_000, 16_384
"""Limits of a video's frames and of its sides in pixels: more is a typing error."""


class ModelFacts(Protocol):
    """What the checks need to know of a model."""

    @property
    def defaults(self) -> Defaults:
        """The values that stand for those that are not given."""

    @property
    def config(self) -> UNetConfig:
        """The UNet's configuration."""


def checked_shape(
    model: ModelFacts, count: int, frames: int | None, width: int | None, height: int | None
) -> tuple[int, ...]:
    """The latents' shape (count, 4, frames, height/8, width/8), with the model's defaults for None.

    Raises:
        T2VError: where no video has these sizes.
    """
    frames = model.defaults.frames if frames is None else whole_number(frames, "frames")
    width = model.defaults.width if width is None else whole_number(width, "width")
    height = model.defaults.height if height is None else whole_number(height, "height")
    if not 1 <= frames <= MOST_FRAMES:
        raise T2VError(f"frames is {frames}: at least 1 is wanted and at most {MOST_FRAMES}.")
    for name, size in (("width", width), ("height", height)):
        if size > LARGEST:
            raise T2VError(f"{name} is {size}: at most {LARGEST} is possible.")
        if size < 8 or size % 8:
            raise T2VError(f"{name} is {size}: a multiple of 8 is wanted, {max(8, round(size / 8) * 8)} for one.")
    return (count, model.config.out_channels, frames, height // 8, width // 8)


def is_guided(model: ModelFacts, scale: float) -> bool:
    """Whether the model predicts for the negative prompt, too: not at scale 1, nor where guidance is built in."""
    return scale != 1 and not model.config.guidance_dim


def warn_of_unused(negatives: Iterable[Any], model: ModelFacts, scale: float) -> None:
    """Log that negative prompts have no effect; no error, since users try several scales with all else as it is."""
    if any(negatives) and not is_guided(model, scale):
        built_in = model.config.guidance_dim
        why = "this model has its guidance built in" if built_in else "a guidance scale of 1 switches guidance off"
        log.warning("The negative prompt is not used: %s.", why)


def check_memory(shape: Sequence[int], *, decoded: bool) -> None:
    """Refuse a video of latents (b, c, t, h, w) that the computer's free memory cannot hold, before anything is computed.

    decoded: all its frames are held at once, too. Counted are the noise and the latents, and float32 frames.

    Raises:
        T2VError: naming the memory that is needed and the memory that is free.
    """
    import psutil

    available = psutil.virtual_memory().available
    videos, _, frames, height, width = shape
    needed = 2 * 4 * math.prod(shape) + (videos * frames * 8 * height * 8 * width * 3 * 4 if decoded else 0)
    if needed > available:
        raise T2VError(
            f"{videos * frames} frames of {8 * width}x{8 * height} need at least {needed / 1e9:.1f} GB of memory, and "
            f"{available / 1e9:.1f} GB are free: make fewer frames (--frames) or smaller ones (--size)."
        )


def whole_number(value: Any, name: str) -> int:
    """The int of a whole number, also of NumPy's and PyTorch's and of a float such as 16.0; T2VError for anything else."""
    try:
        return operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        number = _plain(value)
    if isinstance(number, float) and number.is_integer():
        return int(number)
    raise T2VError(f"{name} is {shortened(repr(value), 100)}: a whole number is wanted, such as 16.")


def real_number(value: Any, name: str) -> float:
    """A finite number as Python's; T2VError, with its name, for NaN, an infinite one and anything else."""
    number = _plain(value)
    if not isinstance(number, (int, float, Fraction)) or not math.isfinite(number):
        raise T2VError(f"{name} is {shortened(repr(number), 100)}: a finite number is wanted.")
    return number  # type: ignore[return-value]  # a Fraction is a number for all that is done with it


def _plain(value: Any) -> Any:
    """A single number of NumPy or PyTorch as Python's, anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def checked_share(value: float, name: str) -> float:
    """A number from 0 to 1; T2VError for any other."""
    number = real_number(value, name)
    if not 0 <= number <= 1:
        raise T2VError(f"{name} is {number}: a number from 0 to 1 is wanted.")
    return number


def checked_rate(fps: float) -> float:
    """The frame rate; T2VError outside 0.001 to 1000 frames a second."""
    fps = _plain(fps)
    rate = frame_rate(fps)
    return float(rate) if isinstance(fps, str) else fps


def checked_motion(motion: float, config: UNetConfig) -> float:
    """The number that a UNet is conditioned on besides the text; T2VError where it is none or the UNet takes none."""
    if not config.fps_embedding:
        raise T2VError("motion is given, but this model has no embedding of a frame rate or stride: leave it out.")
    if (number := real_number(motion, "motion")) <= 0:
        raise T2VError(f"motion is {number}: a number above 0 is wanted.")
    return number


def checked_seed(seed: int, videos: int = 1) -> int:
    """The seed; T2VError where a random generator takes no such number, or none of the `videos` that follow it."""
    seed = whole_number(seed, "seed")
    if not -(2**63) <= seed <= 2**64 - videos:
        raise T2VError(f"seed is {seed}: a whole number from 0 to 2^64 - 1 is wanted, such as 42.")
    return seed


def checked_scale(scale: float) -> float:
    """The guidance scale; T2VError for an infinite one or NaN."""
    scale = _plain(scale)
    if not isinstance(scale, (int, float)) or not math.isfinite(scale):
        raise T2VError(f"The guidance scale is {scale}: a number is wanted, 1 for no guidance, 3 to 15 as a rule.")
    return scale


def checked_steps(steps: int) -> int:
    """The number of denoising steps; T2VError outside 1 to 1000."""
    steps = whole_number(steps, "steps")
    if not 1 <= steps <= 1000:
        raise T2VError(f"steps is {steps}: a number from 1 to 1000 is wanted.")
    return steps
