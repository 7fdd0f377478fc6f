"""Schedules of sigmas that the host lacks: those that the models were published with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ....t2v_models.sampling.timesteps import ddim_timesteps, lcm_timesteps_of
from ..models.model_sampling import Discrete, last_sigma

AYS_TIMESTEPS = (999, 850, 736, 645, 545, 455, 343, 233, 124, 24)
"""For Stable Diffusion 1.5, whose noise schedule these models have. Sabour et al. 2024 (arXiv:2404.14507)."""

SOLVERS = ("dpmpp", "uni", "deis", "ipndm")
"""The first letters of samplers whose timesteps diffusers spaces as if for one step more."""


def diffusers(model_sampling: Any, steps: int, sampler_name: str, config: dict[str, Any]) -> Tensor:
    """The sigmas of diffusers' pipeline for a model and a sampler.

    DDIM ends on the noise of timestep 0 where the model's configuration says so (set_alpha_to_one false); all other
    samplers end without noise.

    Args:
        model_sampling: the host's object with a table of sigmas.
        steps: how many to take.
        sampler_name: as the node shows it.
        config: the model's scheduler_config.json.

    Returns:
        (steps + 1,) from noisy to clean.
    """
    table = model_sampling.sigmas.cpu()
    spacing, offset = config.get("timestep_spacing", "leading"), config.get("steps_offset", 1)
    solver = sampler_name.startswith(SOLVERS)
    at = ddim_timesteps(steps, spacing, offset, solver=solver, count=len(table))
    if sampler_name == "lcm":
        at = lcm_timesteps_of(config, steps)
    end = torch.zeros(1)
    if sampler_name in ("ddim", "ddim (eta)") and not config.get("set_alpha_to_one", False):
        end = table[:1]
        if isinstance(model_sampling, Discrete):
            end = torch.tensor([last_sigma(model_sampling, float(table[at[-1]]))])
    return torch.cat([table[at], end])


def align_your_steps(model_sampling: Any, steps: int, sampler_name: str, config: dict[str, Any]) -> Tensor:
    """The optimised sigmas, (steps + 1,); counts other than 10 interpolate their logarithms. Arguments: `diffusers`."""
    table = model_sampling.sigmas.cpu().double()
    known = torch.cat([table[list(AYS_TIMESTEPS)], table[:1]]).log()
    position = torch.linspace(0, len(known) - 1, steps + 1, dtype=torch.float64)
    low = position.floor().long().clamp(max=len(known) - 2)
    out = torch.lerp(known[low], known[low + 1], position - low).exp()
    out[-1] = 0.0
    return out.float()


OWN_SCHEDULERS: dict[str, Callable[[Any, int, str, dict[str, Any]], Tensor]] = {
    "diffusers": diffusers,
    "align your steps": align_your_steps,
}
"""The name that the node shows -> the function of the schedule."""
