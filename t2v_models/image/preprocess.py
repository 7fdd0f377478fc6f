"""Pictures as CLIP's image encoder takes them, and the picture that stands for "no picture"."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

CLIP_SIZE = 224
"""Height and width of the pictures that CLIP ViT-H encodes, in pixels."""

GREY = 0.5
"""The value of every pixel of the unconditional picture: the originals feed zeros in -1..1."""

LONGEST = 8
"""Before the middle square is cut out, a picture's longer side is limited to so many times its shorter side."""

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""Of red, green and blue in CLIP's training pictures. Source: arXiv:2103.00020."""


def _normalised(pixels: Tensor) -> Tensor:
    """Subtract the mean of CLIP's pixels from pixels (b, 3, h, w), 0..1, and divide by their deviation."""
    mean, deviation = (torch.tensor(values, device=pixels.device)[:, None, None] for values in (_MEAN, _DEVIATION))
    return (pixels - mean) / deviation


def square_pixels(images: Tensor, width: int) -> Tensor:
    """The middle square of pictures, normalised for CLIP, as I2VGen-XL's pipeline prepares it.

    It is cut from a picture that a box filter has scaled so that the square is as wide as the video, and then scaled to
    CLIP's size; both times it is rounded to 8 bits. Source: diffusers' I2VGenXLPipeline, and VGen.

    images: (b, h, w, 3), 0..1; width: of the video, in pixels -> (b, 3, 224, 224), float32.
    """
    squares = [_square(image, width) for image in images]
    return _normalised(torch.stack(squares).movedim(-1, 1)).to(images.device)


def _square(image: Tensor, width: int) -> Tensor:
    """(h, w, 3), 0..1 -> (224, 224, 3), 0..1, on the CPU."""
    from PIL import Image

    height, across = image.shape[:2]
    most = LONGEST * min(height, across)
    top, left = (max(0, (side - most) // 2) for side in (height, across))
    image = image[top : top + most, left : left + most]
    picture = Image.fromarray((image.float().cpu() * 255).round().clamp(0, 255).byte().numpy())
    scale = min(picture.width, picture.height) / width
    # the division may be just too small for the square
    across, height = (max(width, round(side // scale)) for side in picture.size)
    picture = picture.resize((across, height), Image.Resampling.BOX)
    left, top = (picture.width - width) // 2, (picture.height - width) // 2
    picture = picture.crop((left, top, left + width, top + width))
    picture = picture.resize((CLIP_SIZE, CLIP_SIZE), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(picture)).float() / 255


def clip_pixels(images: Tensor) -> Tensor:
    """Squash pictures to CLIP's size and normalise them, as DynamiCrafter and VideoCrafter1 do: nothing is cut or rounded.

    images: (b, h, w, 3), 0..1 -> (b, 3, 224, 224), float32; values may lie a little outside the range of CLIP's own.
    """
    return _normalised(resize(images.movedim(-1, 1).float(), CLIP_SIZE, CLIP_SIZE))


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
