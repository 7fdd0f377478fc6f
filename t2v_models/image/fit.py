"""Fitting a picture to the size of a clip, and saying what is lost."""

from __future__ import annotations

import logging

from torch import Tensor
from torch.nn import functional as F

from ..errors import T2VError

log = logging.getLogger(__name__)

FITS = ("crop", "pad", "stretch")
"""How a picture fills a clip of another shape: its edges are cut off, black bars are added, or it is distorted."""


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
    if how not in FITS:
        raise T2VError(f"The way to fit a picture is {how!r}: choose one of {', '.join(FITS)}.")
    old_height, old_width = images.shape[1:3]
    images = images.float()
    if (old_height, old_width) == (height, width):
        return images
    across, down = width / old_width, height / old_height
    if how == "stretch":
        _log_stretch(old_width, old_height, width, height)
        return _scaled(images, width, height)
    scale = max(across, down) if how == "crop" else min(across, down)
    # one side has the clip's length exactly; the other is rounded
    new_width = width if scale == across else max(round(old_width * scale), 1)
    new_height = height if scale == down else max(round(old_height * scale), 1)
    images = _scaled(images, new_width, new_height)
    if how == "crop":
        _log_crop(old_width, old_height, width, height, new_width, new_height)
        left, top = (new_width - width) // 2, (new_height - height) // 2
        return images[:, top : top + height, left : left + width].contiguous()
    _log_pad(old_width, old_height, width, height, new_width, new_height)
    left, top = (width - new_width) // 2, (height - new_height) // 2
    return F.pad(images, (0, 0, left, width - new_width - left, top, height - new_height - top))


def _scaled(images: Tensor, width: int, height: int) -> Tensor:
    """Scale by a triangle filter, as Pillow's and torchvision's bilinear resize does. (b, h, w, 3) -> (b, *size, 3)."""
    pixels = F.interpolate(images.movedim(-1, 1), size=(height, width), mode="bilinear", antialias=True)
    return pixels.movedim(1, -1).contiguous()


def _log_crop(old_width: int, old_height: int, width: int, height: int, new_width: int, new_height: int) -> None:
    lost, side = max((1 - width / new_width, "width"), (1 - height / new_height, "height"))
    if lost > 0:
        log.info(
            "The picture of %dx%d is cut to %dx%d: %.0f %% of its %s is lost.",
            old_width, old_height, width, height, 100 * lost, side,
        )  # fmt: skip


def _log_pad(old_width: int, old_height: int, width: int, height: int, new_width: int, new_height: int) -> None:
    bars = 1 - new_width * new_height / (width * height)
    if bars > 0:
        log.info(
            "The picture of %dx%d is padded to %dx%d: %.0f %% of each frame is black bars.",
            old_width, old_height, width, height, 100 * bars,
        )  # fmt: skip


def _log_stretch(old_width: int, old_height: int, width: int, height: int) -> None:
    ratio = (width / height) / (old_width / old_height)
    if ratio != 1:
        log.info(
            "The picture of %dx%d is stretched to %dx%d: it becomes %.0f %% %s.",
            old_width, old_height, width, height,
            100 * (max(ratio, 1 / ratio) - 1), "wider" if ratio > 1 else "taller",
        )  # fmt: skip
