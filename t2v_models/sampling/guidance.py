"""How the prompt's and the negative prompt's predictions are combined."""

from __future__ import annotations

import torch
from torch import Tensor

MOTION_GUIDANCE, MOTION_UNTIL = 0.05, 500
"""What T2V-Turbo v2 is told at the noisy timesteps, down to this one; below it, 0. Li et al. 2024 (arXiv:2410.05677), and
their predict.py."""


def classifier_free(cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
    """uncond + scale (cond - uncond), of any shape. Source: Ho and Salimans 2022 (arXiv:2207.12598)."""
    return uncond + scale * (cond - uncond)


def rescale(guided: Tensor, cond: Tensor, amount: float) -> Tensor:
    """Give each video back the contrast of its unguided prediction. guided, cond: (b, c, t, h, w) -> the same.

    amount: 0 leaves `guided` as it is, 1 takes the standard deviation of `cond` over everything but the batch.
    Source: Lin et al. 2023, section 3.4 (arXiv:2305.08891).
    """
    if not amount:
        return guided
    axes = tuple(range(1, guided.ndim))
    matched = guided * (cond.std(axes, keepdim=True) / guided.std(axes, keepdim=True))
    return amount * matched + (1 - amount) * guided


def motion_guidance(timesteps: Tensor, amount: float = MOTION_GUIDANCE) -> Tensor:
    """(b,) what T2V-Turbo v2 is told at timesteps of (b,), or (b, t) of which each clip's noisiest counts."""
    noisiest = timesteps.reshape(len(timesteps), -1).amax(1)
    return torch.where(noisiest >= MOTION_UNTIL, amount, 0.0)
