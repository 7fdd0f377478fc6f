"""diffusers' schedulers by short names."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from inspect import signature
from typing import Any

import torch

from ..errors import T2VError
from .schedule import NoiseSchedule, betas_of
from .timesteps import lcm_timesteps_of

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

OUR_KEYS = ("scale_base", "keeps_last_scale", "even_steps")
"""Keys of a scheduler configuration that diffusers does not know."""


def check_scheduler(name: str) -> None:
    """Raises T2VError where no scheduler has that name."""
    if name not in SCHEDULERS:
        raise T2VError(f"Scheduler {name!r} is not known: choose one of {', '.join(SCHEDULERS)}.")


def build_scheduler(name: str, config: Mapping[str, Any]) -> Any:
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
    ours = {key: config[key] for key in OUR_KEYS if key in config}  # diffusers would warn of them
    theirs = {key: value for key, value in config.items() if key not in ours} | extra
    if config.get("rescale_betas_zero_snr") and "rescale_betas_zero_snr" not in signature(kind.__init__).parameters:
        # Heun's has no such option, and ignores it in silence
        theirs["trained_betas"] = betas_of(NoiseSchedule.from_config(config).alphas_cumprod).tolist()
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
            # older versions divide 0 by 0 where the highest sigma is that of two timesteps
            lost = scheduler.timesteps < 0
            scheduler.timesteps = scheduler.timesteps.masked_fill(lost, scheduler.config.num_train_timesteps - 1)
    except (ValueError, IndexError, AssertionError) as error:
        wrong = error
    if wrong is not None or not _can_be_stepped(scheduler):
        raise T2VError(f"Scheduler {name!r} cannot take {steps} steps: ask for fewer, 20 to 50 are usual.") from wrong


def _can_be_stepped(scheduler: Any) -> bool:
    """Whether its timesteps are the model's, and its sigmas differ: multistep solvers divide by the difference."""
    if int(scheduler.timesteps.max()) >= scheduler.config.num_train_timesteps:
        return False
    return "solver_order" not in scheduler.config or bool((scheduler.sigmas.diff() < 0).all())
