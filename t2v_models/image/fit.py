"""Fitting a picture to the size of a clip, and saying what is lost."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from ..errors import T2VError

log = logging.getLogger(__name__)

FITS = ("crop", "pad", "stretch")
"""How a picture fills a clip of another shape: its edges are cut off, black bars are added, or it is distorted."""

MOST_SCALED = 4
"""Before a picture is scaled, its edges are cut off down to so many times what the clip shows of it."""


def fit(images: Tensor, width: int, height: int, how: str = "crop") -> Tensor:
    """Scale pictures to a clip's size; where their shape differs, cut, pad or stretch them, and log what that costs.

    Args:
        images: (b, h, w, 3), 0..1.
        width: of the clip, in pixels.
        height: of the clip, in pixels.
        how: "crop" keeps the middle, as the originals' scripts do; "pad" keeps all, between black bars; "stretch" keeps
            all, distorted.

    Returns:
        (b, height, width, 3), float32; the pictures themselves where they have the size.

    Raises:
        T2VError: for another way to fit.
    """
    if how not in _WAYS:
        raise T2VError(f"The way to fit a picture is {how!r}: choose one of {', '.join(FITS)}.")
    images = images.float()
    _, old_height, old_width, _ = images.shape
    if (old_height, old_width) == (height, width):
        return images
    fitted, cost = _WAYS[how](images, width, height)
    if cost:
        log.info("The picture of %dx%d is %s.", old_width, old_height, cost)
    return fitted


def _crop(images: Tensor, width: int, height: int) -> tuple[Tensor, str]:
    """Fill the size, and cut off what sticks out. Returns the pictures, and what that costs; "" for nothing."""
    _, old_height, old_width, _ = images.shape
    scale = max(width / old_width, height / old_height)
    # only the middle is scaled: the whole of a picture of 16384x8 would be too large at the clip's height
    across, down = (math.ceil(MOST_SCALED * side / scale) for side in (width, height))
    images = _middle(images, across + (old_width - across) % 2, down + (old_height - down) % 2)
    new_width = max(round(images.shape[2] * scale), width)
    new_height = max(round(images.shape[1] * scale), height)
    fitted = _middle(_scaled(images, new_width, new_height), width, height)
    if (new_width, new_height) == (width, height):
        return fitted, ""
    lost, side = max((1 - width / (old_width * scale), "width"), (1 - height / (old_height * scale), "height"))
    return fitted, f"cut to {width}x{height}: {100 * lost:.0f} % of its {side} is lost"


def _pad(images: Tensor, width: int, height: int) -> tuple[Tensor, str]:
    """Scale the whole picture into the size, and fill the rest with black."""
    _, old_height, old_width, _ = images.shape
    scale = min(width / old_width, height / old_height)
    new_width, new_height = (
        min(max(round(old * scale), 1), most) for old, most in ((old_width, width), (old_height, height))
    )
    left, top = (width - new_width) // 2, (height - new_height) // 2
    fitted = _scaled(images, new_width, new_height)
    fitted = F.pad(fitted, (0, 0, left, width - new_width - left, top, height - new_height - top))
    bars = 1 - new_width * new_height / (width * height)
    cost = f"padded to {width}x{height}: {100 * bars:.0f} % of each frame is black bars"
    return fitted, cost if bars else ""


def _stretch(images: Tensor, width: int, height: int) -> tuple[Tensor, str]:
    """Scale width and height independently of each other."""
    _, old_height, old_width, _ = images.shape
    ratio = (width * old_height) / (height * old_width)
    way = "wider" if ratio > 1 else "taller"
    cost = f"stretched to {width}x{height}: it becomes {100 * (max(ratio, 1 / ratio) - 1):.0f} % {way}"
    return _scaled(images, width, height), cost if ratio != 1 else ""


_WAYS: dict[str, Callable[[Tensor, int, int], tuple[Tensor, str]]] = {"crop": _crop, "pad": _pad, "stretch": _stretch}


def _middle(images: Tensor, width: int, height: int) -> Tensor:
    """The middle of pictures (b, h, w, 3), at most of this size."""
    left, top = max(images.shape[2] - width, 0) // 2, max(images.shape[1] - height, 0) // 2
    return images[:, top : top + height, left : left + width].contiguous()


def _scaled(images: Tensor, width: int, height: int) -> Tensor:
    """Scale by a triangle filter, as Pillow's and torchvision's bilinear resize does. (b, h, w, 3) -> (b, *size, 3)."""
    pixels = F.interpolate(images.movedim(-1, 1), size=(height, width), mode="bilinear", antialias=True)
    return pixels.movedim(1, -1).contiguous()
