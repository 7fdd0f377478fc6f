"""Noise levels that the host does not have: those that the models were published with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

AYS_TIMESTEPS = (999, 850, 736, 645, 545, 455, 343, 233, 124, 24)
"""For Stable Diffusion 1.5, whose noise schedule these models share. Sabour et al. 2024 (arXiv:2404.14507)."""


@dataclass(frozen=True)
class OwnScheduler:
    """A function (model_sampling, steps) -> (steps + 1,) noise levels, and whether the last one is above zero."""

    sigmas: Callable[[Any, int], Tensor]
    ends_noisy: bool = False


def ddim_timesteps(steps: int, train_steps: int = 1000) -> Tensor:
    """Every (1000 // steps)th timestep from 1 on, highest first: (steps,).

    As ModelScope, VideoCrafter and diffusers ("leading", steps_offset 1) take them.
    """
    return (torch.arange(steps) * (train_steps // steps) + 1).flip(0).clamp(max=train_steps - 1)


def ddim(model_sampling: Any, steps: int) -> Tensor:
    """The exact DDIM levels, which end on abar_0 and not on zero noise."""
    steps = min(steps, len(model_sampling.sigmas))
    sigmas = model_sampling.sigmas.cpu()
    return torch.cat([sigmas[ddim_timesteps(steps, len(sigmas))], sigmas[:1]])


def trailing_timesteps(steps: int, train_steps: int = 1000) -> Tensor:
    """The timesteps that begin on the last one, for models with no signal left there: (steps,)."""
    return torch.arange(train_steps, 0, -train_steps / steps).round().long()[:steps] - 1


def ddim_trailing(model_sampling: Any, steps: int) -> Tensor:
    """DDIM from the very last timestep, as zero terminal SNR wants. Lin et al. 2023 (arXiv:2305.08891), table 2."""
    steps = min(steps, len(model_sampling.sigmas))
    sigmas = model_sampling.sigmas.cpu()
    return torch.cat([sigmas[trailing_timesteps(steps, len(sigmas))], sigmas[:1]])


def align_your_steps(model_sampling: Any, steps: int) -> Tensor:
    """The optimised levels; other counts than 10 by interpolating their logarithms."""
    sigmas = model_sampling.sigmas.cpu().double()
    levels = sigmas[list(AYS_TIMESTEPS)].log()
    last = sigmas[:1].log()
    known = torch.cat([levels, last])
    position = torch.linspace(0, len(known) - 1, steps + 1, dtype=torch.float64)
    low = position.floor().long().clamp(max=len(known) - 2)
    out = torch.lerp(known[low], known[low + 1], position - low).exp()
    out[-1] = 0.0
    return out.float()


OWN_SCHEDULERS = {
    "ddim (exact)": OwnScheduler(ddim, ends_noisy=True),
    "ddim trailing (exact)": OwnScheduler(ddim_trailing, ends_noisy=True),
    "align your steps": OwnScheduler(align_your_steps),
}
"""By the name that the node shows."""
