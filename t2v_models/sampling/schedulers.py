"""diffusers' schedulers by short names, and the noise schedules that diffusers has no name for."""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from ..errors import T2VError
from .ddim import alphas_cumprod, lcm_timesteps_of

SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpm++2m": ("DPMSolverMultistepScheduler", {}),
    "dpm++2m-karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "lcm": ("LCMScheduler", {}),
}
"""Name -> diffusers' class and what its configuration adds to the model's own."""


def check_scheduler(name: str) -> None:
    """Raises T2VError where no scheduler has that name."""
    if name not in SCHEDULERS:
        raise T2VError(f"Scheduler {name!r} is not known: choose one of {', '.join(SCHEDULERS)}.")


def build_scheduler(name: str, config: dict[str, Any]) -> Any:
    """One of diffusers' schedulers, with the noise schedule of the model.

    Args:
        name: a key of `SCHEDULERS`.
        config: the model's scheduler configuration (betas, prediction type, spacing …).

    Raises:
        T2VError: for a name that is not known.
    """
    check_scheduler(name)
    class_name, extra = SCHEDULERS[name]
    kind = getattr(import_module("diffusers"), class_name)
    our_keys = ("scale_base", "keeps_last_scale", "even_steps")  # diffusers would warn of them
    ours = {key: config[key] for key in our_keys if key in config}
    theirs = {key: value for key, value in config.items() if key not in ours} | extra
    if config.get("rescale_betas_zero_snr") and "rescale_betas_zero_snr" not in signature(kind.__init__).parameters:
        theirs["trained_betas"] = _betas_of(alphas_cumprod(config)).tolist()  # Heun's would leave it out without a word
    try:
        made = kind.from_config(theirs)
        made.register_to_config(**ours)
        return made
    except (NotImplementedError, ValueError, TypeError) as error:
        raise T2VError(f"Scheduler {name!r} cannot be made of the model's configuration ({error}).") from error


def set_steps(scheduler: Any, name: str, steps: int, device: torch.device | str) -> None:
    """Choose the timesteps of so many steps.

    Raises:
        T2VError: for more than this kind of scheduler can take.
    """
    wrong = None
    try:
        if scheduler.config.get("even_steps") and name == "lcm":
            if steps > scheduler.config.original_inference_steps:
                raise ValueError("it was taught fewer")
            scheduler.set_timesteps(timesteps=lcm_timesteps_of(scheduler.config, steps).tolist(), device=device)
        else:
            scheduler.set_timesteps(steps, device=device)
            if not hasattr(scheduler, "sigmas"):  # "trailing" rounds to one step more at 61, 103, 121 …
                scheduler.timesteps = scheduler.timesteps[:steps]
    except (ValueError, IndexError, AssertionError) as error:
        wrong = error
    if wrong is not None or not _can_be_stepped(scheduler):
        raise T2VError(f"Scheduler {name!r} cannot take {steps} steps: ask for fewer, 20 to 50 are usual.") from wrong


def _can_be_stepped(scheduler: Any) -> bool:
    """Whether its timesteps are the model's, and its levels of noise differ: multistep solvers divide by the difference."""
    if int(scheduler.timesteps.max()) >= scheduler.config.num_train_timesteps:
        return False
    return "solver_order" not in scheduler.config or bool((scheduler.sigmas.diff() < 0).all())


def _betas_of(abar: Tensor) -> Tensor:
    """The betas whose products of 1 - beta these are; a last one of 0 is as near to it as diffusers comes."""
    abar = abar.clamp(min=2**-24)
    return 1 - abar / torch.cat([torch.ones(1, dtype=abar.dtype), abar[:-1]])


def scaled_schedule(betas: Tensor, base: float) -> tuple[Tensor, Tensor]:
    """VideoCrafter's scaled noise schedule, as an ordinary one and a factor.

    There x_t = s_t sqrt(abar_t) x_0 + sqrt(1 - abar_t) e, where s_t falls from 1 to `base` over 400 timesteps. Divided
    by its own norm n_t, x_t follows an ordinary variance-preserving schedule with the same noise e.

    Args:
        betas: (1000,) of the unscaled schedule.
        base: the last scale, 0.7 (512 pixels) or 0.3 (1024).

    Returns:
        (1000,) betas of that ordinary schedule, and (1000,) n_t, by which its x_t is multiplied for the model.

    Source: Chen et al. 2023, 2024 (VideoCrafter's and DynamiCrafter's published configurations and their DDIM).
    """
    abar = torch.cumprod(1 - betas.double(), dim=0)
    scale = torch.full_like(abar, base)
    scale[:400] = torch.linspace(1, base, 400, dtype=torch.float64)
    signal = abar * scale**2
    norm = signal + 1 - abar
    ordinary = signal / norm
    previous = torch.cat([torch.ones(1, dtype=torch.float64), ordinary[:-1]])
    return (1 - ordinary / previous).float(), norm.sqrt().float()


def with_scaled_schedule(config: dict[str, Any], scale_base: float | None) -> tuple[dict[str, Any], Tensor | None]:
    """A scheduler's configuration, and what the network's input is multiplied with at each timestep; see
    `scaled_schedule`. Without a scale the same configuration and None."""
    if scale_base is None:
        return config, None
    betas, input_scale = scaled_schedule(_betas(config), scale_base)
    return {**config, "trained_betas": betas.tolist()}, input_scale


def _betas(config: dict[str, Any]) -> Tensor:
    """(1000,) betas of a scaled-linear schedule."""
    start, end, count = config["beta_start"], config["beta_end"], config.get("num_train_timesteps", 1000)
    return torch.linspace(start**0.5, end**0.5, count, dtype=torch.float64) ** 2
