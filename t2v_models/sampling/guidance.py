"""How the prompt's and the negative prompt's predictions are combined."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

MOTION_GUIDANCE, MOTION_UNTIL = 0.05, 500
"""T2V-Turbo v2's motion guidance, and the cleanest timestep that has it; cleaner ones have 0. Li et al. 2024
(arXiv:2410.05677), and their predict.py."""


def classifier_free(cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
    """uncond + scale (cond - uncond), of any shape. Source: Ho and Salimans 2022 (arXiv:2207.12598)."""
    return uncond + scale * (cond - uncond)


def with_image(cond: Tensor, image_only: Tensor, uncond: Tensor, text_scale: float, image_scale: float) -> Tensor:
    """Guide by a text and a picture, each with a scale of its own.

    Args:
        cond: what the network predicts for the prompt and the picture, of any shape.
        image_only: for the negative prompt and the picture, like cond.
        uncond: for the negative prompt and the grey picture, like cond.

    Returns:
        uncond + image_scale (image_only - uncond) + text_scale (cond - image_only); with equal scales, `classifier_free`.
        Source: Brooks et al. 2023, InstructPix2Pix, section 3.2.1 (arXiv:2211.09800), as DynamiCrafter uses it.
    """
    return uncond + image_scale * (image_only - uncond) + text_scale * (cond - image_only)


def rescale(guided: Tensor, cond: Tensor, amount: float) -> Tensor:
    """Bring each video's guided prediction back to the contrast of the unguided one.

    Args:
        guided, cond: (b, c, t, h, w) outputs of the network, guided and for the prompt alone.
        amount: 0 leaves `guided` as it is, 1 gives it the standard deviation of `cond` over all but the batch.

    Returns:
        Like `guided`. Source: Lin et al. 2023, section 3.4 (arXiv:2305.08891).
    """
    if not amount:
        return guided
    axes = tuple(range(1, guided.ndim))
    matched = guided * (cond.std(axes, keepdim=True) / guided.std(axes, keepdim=True))
    return amount * matched + (1 - amount) * guided


def guide(predictions: Sequence[Tensor], text_scale: float, image_scale: float, amount: float) -> Tensor:
    """Combine what a network predicts with and without its conditions.

    Args:
        predictions: each (b, c, t, h, w): the one for all conditions alone; before it the unconditional one; or
            unconditional, image only, and all three, see `with_image`.
        text_scale: of `classifier_free` and `with_image`.
        image_scale: of `with_image`.
        amount: of `rescale`.
    """
    *others, cond = predictions
    if not others:
        return cond
    if len(others) == 1:
        guided = classifier_free(cond, others[0], text_scale)
    else:
        guided = with_image(cond, others[1], others[0], text_scale, image_scale)
    return rescale(guided, cond, amount)


def motion_guidance(timesteps: Tensor, amount: float = MOTION_GUIDANCE) -> Tensor:
    """T2V-Turbo v2's motion guidance at the timesteps of clips.

    timesteps: (b,), or (b, frames), of which each clip's noisiest counts -> (b,) `amount` or 0.
    """
    noisiest = timesteps.reshape(len(timesteps), -1).amax(1)
    return torch.where(noisiest >= MOTION_UNTIL, amount, 0.0)
