"""Tensors that a caller gives: of PyTorch, of NumPy, or pictures of Pillow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .errors import T2VError

SMALLEST_PICTURE, LARGEST_PICTURE = 8, 16_384
"""Sides in pixels of a picture to start from: what is smaller or larger is a mistake."""


def pixels(value: Any, name: str) -> Tensor:
    """Convert frames to a float32 tensor (…, h, w, 3) in 0..1.

    Args:
        value: a tensor or array; a list of them, or of Pillow's images, is stacked. uint8 is divided by 255.
        name: of the argument, for errors.

    Raises:
        T2VError: where it is none of these, or its values are far outside 0..1, as those of -1..1 and 0..255 are.
    """
    if isinstance(value, (list, tuple)):
        parts = [pixels(each, name) for each in value]
        if not parts or any(part.shape != parts[0].shape for part in parts):
            raise T2VError(f"{name} is a list of {len(parts)} pictures: one or more of the same size are wanted.")
        return torch.stack(parts)
    tensor = _tensor(value.convert("RGB") if hasattr(value, "convert") else value, name)
    if tensor.dtype == torch.uint8:
        return tensor.float() / 255
    tensor = finite_tensor(tensor, name)
    if tensor.numel():
        low, high = (float(end) for end in tensor.aminmax())
        if low < -0.5 or high > 1.5:
            raise T2VError(
                f"{name} has values from {low:g} to {high:g}: floats from 0 to 1 are wanted, or uint8 from 0 to 255."
            )
    return tensor


def pictures(value: Any, name: str, count: int) -> Tensor:
    """Convert one picture, or one for each of `count` videos, to a float32 tensor (count, h, w, 3) in 0..1.

    Args:
        value: as in `pixels`: (h, w, 3), (1, h, w, 3) or (count, h, w, 3), a list of pictures, or a picture of Pillow's.
        name: of the argument, for errors.

    Raises:
        T2VError: for another number of pictures, other than three colours, and sizes that are mistakes.
    """
    for each in value if isinstance(value, (list, tuple)) else [value]:
        if is_transparent(each):
            raise T2VError(f"{name} is a picture with transparency: lay it on a background first, and give it as RGB.")
    tensor = pixels(value, name)
    tensor = tensor[None] if tensor.ndim == 3 else tensor
    if tensor.ndim != 4 or 0 in tensor.shape:
        raise T2VError(f"{name} has shape {tuple(tensor.shape)}: a picture (h, w, 3) is wanted.")
    number, height, width, colours = tensor.shape
    if colours != 3:
        kind = " (RGBA)" if colours == 4 else ""
        remedy = "lay it on a background first, and give the three of RGB" if kind else "the three of RGB are wanted"
        raise T2VError(f"{name} has {colours} channels{kind}: {remedy}.")
    if number not in (1, count):
        wanted = "one is wanted" if count == 1 else f"one is wanted, or one for each of {count} prompts"
        raise T2VError(f"{name} holds {number} pictures: {wanted}.")
    if min(height, width) < SMALLEST_PICTURE or max(height, width) > LARGEST_PICTURE:
        raise T2VError(
            f"{name} is {width}x{height} pixels: sides of {SMALLEST_PICTURE} to {LARGEST_PICTURE} are wanted, so "
            "scale it first."
        )
    return tensor.expand(count, -1, -1, -1)


def is_transparent(value: Any) -> bool:
    """Whether a value is a picture of Pillow's that has an alpha channel or a transparent colour."""
    return hasattr(value, "getbands") and ("A" in value.getbands() or "transparency" in value.info)


def finite_tensor(value: Any, name: str) -> Tensor:
    """Convert a tensor or array of finite floats to float32.

    Raises:
        T2VError: where it is none, holds integers, or holds NaN or infinity.
    """
    tensor = _tensor(value, name)
    if not tensor.is_floating_point():
        raise T2VError(f"{name} is of type {tensor.dtype}: floats are wanted.")
    if not torch.isfinite(tensor).all():
        raise T2VError(f"{name} holds NaN or infinite values: finite ones are wanted.")
    return tensor.float()


def _tensor(value: Any, name: str) -> Tensor:
    """A tensor that shares no memory with an array that cannot be written."""
    if isinstance(value, Tensor):
        return value
    try:
        import numpy

        array = numpy.ascontiguousarray(value)
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    except (TypeError, ValueError, RuntimeError) as error:
        raise T2VError(
            f"{name} is of type {type(value).__name__}: a tensor or an array of numbers is wanted."
        ) from error
