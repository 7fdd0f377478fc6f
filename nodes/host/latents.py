"""LATENT dictionaries: empty ones, and clips to a batch of frames and back."""

from __future__ import annotations

import math
from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ...t2v_models.errors import T2VError
from . import compat
from .memory import check_bytes
from .models.model import video_model

COPIES = 3
"""Of a latent while it is sampled: itself, its noise and the result."""


def empty(width: int, height: int, frames: int, batch_size: int, model: Any | None) -> dict[str, Tensor]:
    """Make a LATENT of zeros, (batch, 4, frames, height/8, width/8); a size of 0 is the model's own.

    Raises:
        T2VError: for a size of 0 without a model, for one that is no multiple of 8, and where the memory does not hold the
            latent, its noise and the result.
    """
    if 0 in (width, height, frames):
        if model is None:
            raise T2VError(
                f"Width, height and frames are {width}, {height} and {frames}: wire the MODEL so that 0 can mean its "
                "own size, or give all three."
            )
        own = video_model(model).defaults
        width, height, frames = width or own.width, height or own.height, frames or own.frames
    for name, size in (("width", width), ("height", height)):
        if size % 8:
            raise T2VError(f"The {name} is {size}: a multiple of 8 is wanted, {max(8, round(size / 8) * 8)} for one.")
    shape = (batch_size, 4, frames, height // 8, width // 8)
    device, dtype = comfy.model_management.intermediate_device(), compat.intermediate_dtype()
    what = f"Sampling {batch_size} clips of {frames} frames of {width}x{height}"
    check_bytes(
        COPIES * math.prod(shape) * dtype.itemsize, what, "set fewer frames, a smaller batch_size or a smaller size"
    )
    return {"samples": torch.zeros(shape, device=device, dtype=dtype)}


def to_frames(latent: dict[str, Any]) -> dict[str, Any]:
    """Turn the clips of a LATENT, (b, c, t, h, w), and of its noise mask into a batch of frames, ((b t), c, h, w)."""
    samples = latent["samples"]
    if samples.ndim == 4:
        return latent
    out = {**latent, "samples": samples.movedim(2, 1).flatten(0, 1)}
    out.pop("batch_index", None)
    mask = latent.get("noise_mask")
    if mask is not None and mask.ndim == 5:
        out["noise_mask"] = mask.movedim(2, 1).flatten(0, 1)
    return out


def to_clips(latent: dict[str, Any], frames: int = 0) -> dict[str, Any]:
    """Turn a LATENT's batch of frames, ((b t), c, h, w), and its noise mask into clips, (b, c, t, h, w).

    frames: t; 0 makes one clip of all. Raises T2VError where they do not divide.
    """
    samples = latent["samples"]
    if samples.ndim == 5:
        return latent
    count = samples.shape[0]
    frames = frames or count
    if count % frames:
        raise T2VError(f"{count} frames do not divide into clips of {frames}: choose a divisor, or 0 for one clip.")
    out = {**latent, "samples": samples.unflatten(0, (-1, frames)).movedim(1, 2)}
    out.pop("batch_index", None)
    mask = latent.get("noise_mask")
    if mask is not None and mask.shape[0] == count:
        mask = mask.reshape(count, -1, *mask.shape[-2:])[:, :1]
        out["noise_mask"] = mask.unflatten(0, (-1, frames)).movedim(1, 2)
    return out
