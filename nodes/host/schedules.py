"""Noise levels that the host does not have: those that the models were published with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

AYS_TIMESTEPS = (999, 850, 736, 645, 545, 455, 343, 233, 124, 24)
"""For Stable Diffusion 1.5, whose noise schedule these models share. Sabour et al. 2024 (arXiv:2404.14507)."""

_SOLVERS = ("dpmpp", "uni", "deis", "ipndm")
"""How the names of samplers begin whose timesteps diffusers spaces as for one step more."""


def timesteps(steps: int, spacing: str, offset: int, solver: bool, train_steps: int = 1000) -> Tensor:
    """Whole timesteps, highest first: (steps,). As diffusers spaces them; "leading" is ModelScope's own way too.

    Source of the names: Lin et al. 2023 (arXiv:2305.08891), table 2.
    """
    last = train_steps - 1
    if spacing == "trailing":
        out = torch.arange(train_steps, 0, -train_steps / steps, dtype=torch.float64).round()[:steps] - 1
    elif spacing == "linspace":
        out = torch.linspace(0, last, steps + solver, dtype=torch.float64).round().flip(0)[:steps]
    else:
        out = (torch.arange(steps + solver) * (train_steps // (steps + solver))).flip(0)[:steps] + offset
    return out.long().clamp(0, last)


def diffusers(model_sampling: Any, steps: int, sampler_name: str, config: dict[str, Any]) -> Tensor:
    """The levels that diffusers' pipeline takes for a model and a sampler: (steps + 1,).

    DDIM ends on the noise of the first timestep where the model's configuration says so (set_alpha_to_one false), all
    others on none. config: the model's scheduler_config.json.
    """
    table = model_sampling.sigmas.cpu()
    spacing, offset = config.get("timestep_spacing", "leading"), config.get("steps_offset", 1)
    at = timesteps(steps, spacing, offset, sampler_name.startswith(_SOLVERS), len(table))
    end = torch.zeros(1)
    if sampler_name == "ddim" and not config.get("set_alpha_to_one", False):
        end = table[:1]
    return torch.cat([table[at], end])


def align_your_steps(model_sampling: Any, steps: int, sampler_name: str, config: dict[str, Any]) -> Tensor:
    """The optimised levels, (steps + 1,); other counts than 10 by interpolating their logarithms."""
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
"""By the name that the node shows."""
