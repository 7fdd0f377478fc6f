"""DDIM on tensors of noise levels, so that every frame of a video can be at a level of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import T2VError


def alphas_cumprod(config: dict[str, Any]) -> Tensor:
    """(1000,) abar of a diffusers scheduler configuration, float64; its own zero terminal SNR included."""
    count = config.get("num_train_timesteps", 1000)
    kind = config.get("beta_schedule")
    if config.get("trained_betas") is not None:
        betas = torch.tensor(config["trained_betas"], dtype=torch.float64)
    elif kind == "scaled_linear":
        betas = torch.linspace(config["beta_start"] ** 0.5, config["beta_end"] ** 0.5, count, dtype=torch.float64) ** 2
    elif kind == "linear":
        betas = torch.linspace(config["beta_start"], config["beta_end"], count, dtype=torch.float64)
    elif kind == "squaredcos_cap_v2":  # Nichol and Dhariwal 2021 (arXiv:2102.09672), section 3.2
        time = torch.arange(count + 1, dtype=torch.float64) / count
        share = ((time + 0.008) / 1.008 * torch.pi / 2).cos().square()
        betas = (1 - share[1:] / share[:-1]).clamp(max=0.999)
    else:
        raise T2VError(f"beta_schedule is {kind!r}: scaled_linear, linear or squaredcos_cap_v2 is wanted.")
    abar = torch.cumprod(1 - betas, dim=0)
    if config.get("rescale_betas_zero_snr"):  # Lin et al. 2023 (arXiv:2305.08891), algorithm 1
        root = abar.sqrt()
        abar = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return abar


def ddim_timesteps(
    steps: int, spacing: str = "leading", offset: int = 1, *, solver: bool = False, count: int = 1000
) -> Tensor:
    """(steps,) whole timesteps from noisy to clean, as diffusers spaces them; "leading" is ModelScope's own way too.

    spacing: "leading", "trailing" or "linspace"; solver: spaced as diffusers' multistep solvers do, as for one step
    more. Source of the names: Lin et al. 2023 (arXiv:2305.08891), table 2.
    """
    if spacing == "trailing":
        out = torch.arange(count, 0, -count / steps, dtype=torch.float64).round()[:steps] - 1
    elif spacing == "linspace":
        out = torch.linspace(0, count - 1, steps + solver, dtype=torch.float64).round().flip(0)[:steps]
    else:
        out = (torch.arange(steps + solver) * (count // (steps + solver))).flip(0)[:steps] + offset
    return out.long().clamp(0, count - 1)


def lcm_timesteps(steps: int, count: int = 1000, taught: int = 50, *, even: bool = False) -> Tensor:
    """(steps,) the timesteps of a consistency-distilled model, from noisy to clean.

    They are spread over the `taught` ones that it was distilled at; `even`: in steps of the same length, as T2V-Turbo
    takes them. Source: Luo et al. 2023 (arXiv:2310.04378); Li et al. 2024 (arXiv:2405.18750).
    """
    taught = max(taught, steps)
    known = (torch.arange(taught, 0, -1) * (count // taught)) - 1
    return known[:: taught // steps][:steps] if even else known[torch.arange(steps) * taught // steps]


def lcm_timesteps_of(config: Mapping[str, Any], steps: int) -> Tensor:
    """The same for a diffusers scheduler configuration."""
    count, taught = config.get("num_train_timesteps", 1000), config.get("original_inference_steps", 50)
    return lcm_timesteps(steps, count, taught, even=config.get("even_steps", False))


def timesteps_of(config: dict[str, Any], steps: int) -> Tensor:
    """(steps,) DDIM's timesteps for a diffusers scheduler configuration; of a distilled model those it was taught."""
    count = config.get("num_train_timesteps", 1000)
    if config.get("_class_name") == "LCMScheduler":
        return lcm_timesteps_of(config, steps)
    return ddim_timesteps(steps, config.get("timestep_spacing", "leading"), config.get("steps_offset", 0), count=count)


def to_clean(x: Tensor, prediction: Tensor, abar: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """(x_0, noise) that a prediction implies. x, prediction: any shape that abar broadcasts to.

    kind: "epsilon" or "v_prediction" (Salimans and Ho 2022, arXiv:2202.00512).
    """
    signal, noise = abar.sqrt(), (1 - abar).sqrt()
    if kind == "v_prediction":
        return signal * x - noise * prediction, noise * x + signal * prediction
    if kind == "epsilon":
        return (x - noise * prediction) / signal, prediction
    raise T2VError(f"prediction_type is {kind!r}: epsilon or v_prediction is wanted.")


def ddim_step(x: Tensor, prediction: Tensor, abar: Tensor, abar_next: Tensor, kind: str) -> Tensor:
    """One deterministic step from one level to the next. Source: Song et al. 2021 (arXiv:2010.02502), eta 0."""
    clean, noise = to_clean(x, prediction, abar, kind)
    return abar_next.sqrt() * clean + (1 - abar_next).sqrt() * noise


def add_noise(clean: Tensor, noise: Tensor, abar: Tensor) -> Tensor:
    """sqrt(abar) x_0 + sqrt(1 - abar) noise."""
    return abar.sqrt() * clean + (1 - abar).sqrt() * noise
