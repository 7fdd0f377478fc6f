"""Live previews of clips: a sheet of frames in the model's latent colours."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import comfy.utils
import latent_preview
import torch
from torch import Tensor

MAX_FRAMES = 16
"""Frames on a sheet at most, evenly spaced over the clip."""


def callback(model: Any, steps: int, bar: Any = None, done: int = 0) -> Callable[[int, Tensor, Tensor, int], None]:
    """Make the host's sampler callback: it reports progress, and shows a sheet where previews are switched on.

    bar: the ProgressBar of a longer work, of which so many steps are done; a new one where None.
    """
    look, progress = sheets(model), bar or comfy.utils.ProgressBar(steps)

    def step(index: int, denoised: Tensor, x: Tensor, total: int) -> None:
        progress.update_absolute(done + index + 1, total if bar is None else None, look(denoised))

    return step


def sheets(model: Any) -> Callable[[Tensor], tuple | None]:
    """Make the function from latents to a picture for the host's progress bar; to None where previews are switched off."""
    latent_format = model.model.latent_format
    wanted = latent_preview.get_previewer(model.load_device, latent_format) is not None
    return lambda latent: ("JPEG", sheet(latent, latent_format), None) if wanted else None


def sheet(latent: Tensor, latent_format: Any) -> Any:
    """Draw frames of the first clip side by side, as a PIL image. latent: (b, 4, t, h, w) or (t, 4, h, w)."""
    frames = latent[0].transpose(0, 1) if latent.ndim == 5 else latent  # (t, 4, h, w)
    count = min(len(frames), MAX_FRAMES)
    frames = frames[torch.linspace(0, len(frames) - 1, count).round().long().to(frames.device)].float()
    factors = torch.tensor(latent_format.latent_rgb_factors, dtype=torch.float32, device=frames.device)
    rgb = torch.einsum("t c h w, c k -> t h w k", frames, factors)
    bias = getattr(latent_format, "latent_rgb_factors_bias", None)
    if bias is not None:
        rgb = rgb + torch.tensor(bias, device=rgb.device)
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    height, width = rgb.shape[1:3]
    canvas = torch.full((rows * height, columns * width, 3), -1.0, device=rgb.device)
    for i, frame in enumerate(rgb):
        top, left = i // columns * height, i % columns * width
        canvas[top : top + height, left : left + width] = frame
    image = latent_preview.preview_to_image(canvas)
    factor = max(1, 512 // max(image.size))
    return image.resize((image.width * factor, image.height * factor))
