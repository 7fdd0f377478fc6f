"""Which timesteps a sampler takes, from noisy to clean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def ddim_timesteps(
    steps: int, spacing: str = "leading", offset: int = 1, *, solver: bool = False, count: int = 1000
) -> Tensor:
    """Timesteps as diffusers spaces them; "leading" is also the spacing of ModelScope and VideoCrafter.

    Args:
        steps: how many to take.
        spacing: "leading", "trailing" or "linspace". Source of the names: Lin et al. 2023 (arXiv:2305.08891), table 2.
        offset: added to every timestep of "leading".
        solver: space them as diffusers' multistep solvers do, as if for one step more.
        count: training timesteps of the model.

    Returns:
        (steps,) int64, from noisy to clean, each from 0 to count - 1.
    """
    if spacing == "trailing":
        out = torch.arange(count, 0, -count / steps, dtype=torch.float64).round()[:steps] - 1
    elif spacing == "linspace":
        out = torch.linspace(0, count - 1, steps + solver, dtype=torch.float64).round().flip(0)[:steps]
    else:
        out = (torch.arange(steps + solver) * (count // (steps + solver))).flip(0)[:steps] + offset
    return out.long().clamp(0, count - 1)


def lcm_timesteps(steps: int, count: int = 1000, taught: int = 50, *, even: bool = False) -> Tensor:
    """Timesteps of a consistency-distilled model, spread over those that it was distilled at.

    Args:
        steps: how many to take.
        count: training timesteps of the teacher.
        taught: how many timesteps the model was distilled at.
        even: in steps of equal length, as T2V-Turbo takes them.

    Returns:
        (steps,) int64, from noisy to clean.

    Source: Luo et al. 2023 (arXiv:2310.04378); Li et al. 2024 (arXiv:2405.18750).
    """
    taught = max(taught, steps)
    known = (torch.arange(taught, 0, -1) * (count // taught)) - 1
    return known[:: taught // steps][:steps] if even else known[torch.arange(steps) * taught // steps]


def lcm_timesteps_of(config: Mapping[str, Any], steps: int) -> Tensor:
    """`lcm_timesteps` for a diffusers scheduler configuration: (steps,) int64, from noisy to clean."""
    count, taught = config.get("num_train_timesteps", 1000), config.get("original_inference_steps", 50)
    return lcm_timesteps(steps, count, taught, even=config.get("even_steps", False))


def timesteps_of(config: Mapping[str, Any], steps: int, *, solver: bool = False) -> Tensor:
    """Timesteps that a diffusers scheduler configuration asks for: (steps,) int64, from noisy to clean.

    Those of a distilled model (LCMScheduler) are taken from the ones that it was distilled at. solver: as in
    `ddim_timesteps`.
    """
    if config.get("_class_name") == "LCMScheduler":
        return lcm_timesteps_of(config, steps)
    count = config.get("num_train_timesteps", 1000)
    spacing, offset = config.get("timestep_spacing", "leading"), config.get("steps_offset", 0)
    return ddim_timesteps(steps, spacing, offset, solver=solver, count=count)
