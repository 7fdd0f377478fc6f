"""Pictures as CLIP's image encoder takes them, and the picture that stands for "no picture"."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CLIP_SIZE = 224
"""Height and width of the pictures that CLIP ViT-H encodes, in pixels."""

GREY = 0.5
"""The value of every pixel of the unconditional picture: the originals feed zeros in -1..1."""

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""Of red, green and blue in CLIP's training pictures. Source: arXiv:2103.00020."""


def clip_pixels(images: Tensor) -> Tensor:
    """Squash pictures to CLIP's size and normalise them, as DynamiCrafter and VideoCrafter1 do: nothing is cut or rounded.

    images: (b, h, w, 3), 0..1 -> (b, 3, 224, 224), float32; values may lie a little outside the range of CLIP's own.
    """
    pixels = resize(images.movedim(-1, 1).float(), CLIP_SIZE, CLIP_SIZE)
    mean, deviation = (torch.tensor(values, device=pixels.device)[:, None, None] for values in (_MEAN, _DEVIATION))
    return (pixels - mean) / deviation


def grey_image(size: int = CLIP_SIZE) -> Tensor:
    """The unconditional picture, mid grey: (1, size, size, 3)."""
    return torch.full((1, size, size, 3), GREY)


def resize(pixels: Tensor, height: int, width: int) -> Tensor:
    """Resize as kornia does with bicubic, antialias=True and align_corners=True. pixels: (b, c, h, w) -> (b, c, *size).

    Before an axis is made shorter by the factor f, a Gaussian of the deviation (f - 1) / 2 blurs it. Source: kornia's
    `geometry.transform.resize`, which the originals call.
    """
    for dim, size in ((2, height), (3, width)):
        factor = pixels.shape[dim] / size
        if factor > 1:
            pixels = _blurred(pixels, (factor - 1) / 2, dim)
    return F.interpolate(pixels, size=(height, width), mode="bicubic", align_corners=True)


def _blurred(pixels: Tensor, deviation: float, dim: int) -> Tensor:
    """Blur the rows (dim 2) or the columns (dim 3) by a Gaussian whose kernel has an odd length of about 4 deviations."""
    deviation = max(deviation, 0.001)
    reach = int(max(4 * deviation, 3)) // 2
    distance = torch.arange(-reach, reach + 1, dtype=pixels.dtype, device=pixels.device)
    kernel = torch.exp(-(distance**2) / (2 * deviation**2))
    kernel /= kernel.sum()
    along_rows = dim == 2
    padding = (0, 0, reach, reach) if along_rows else (reach, reach, 0, 0)
    b, c, h, w = pixels.shape
    padded = F.pad(pixels.reshape(b * c, 1, h, w), padding, mode="reflect")
    blurred = F.conv2d(padded, kernel[None, None, :, None] if along_rows else kernel[None, None, None, :])
    return blurred.reshape(b, c, h, w)
