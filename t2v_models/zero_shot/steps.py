"""The steps of a run: one of diffusers' schedulers, begun at any timestep, and its latents in terms of sigma."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import T2VError
from ..sampling.schedule import SMALLEST_SIGNAL, NoiseSchedule
from ..sampling.schedulers import build_scheduler, check_scheduler, set_steps
from .noise import forward, forward_one_early, split

SCHEDULERS = ("ddim", "euler", "dpm++2m", "dpm++2m-karras", "unipc")
"""Those that draw no noise on the way, and predict once a step; a multistep one begins anew where frames part."""

Predict = Callable[[Tensor, Tensor, int], Tensor]
"""(latents as the network sees them, timestep, number of the step) -> the guided prediction, like the latents."""


class Steps:
    """A table of timesteps for a model's schedule. States are numbered from 0, noise, to the number of steps, clean.

    Args:
        name: one of `SCHEDULERS`.
        schedule: the model's.
        steps: of a whole run.
        device: of the timesteps.

    Raises:
        T2VError: for another name, or more steps than the scheduler can take.
    """

    def __init__(self, name: str, schedule: NoiseSchedule, steps: int, device: torch.device | str) -> None:
        check_scheduler(name)
        if name not in SCHEDULERS:
            raise T2VError(
                f"Scheduler {name!r} is not for zero-shot videos, since it draws noise of its own or predicts twice a step: "
                f"choose one of {', '.join(SCHEDULERS)}."
            )
        self.schedule = schedule
        self.base = build_scheduler(name, {"clip_sample": False, **schedule.config})
        set_steps(self.base, name, steps, device)
        self.timesteps: Tensor = self.base.timesteps
        self.exploding = name == "euler"  # its latents are clean + sigma noise, the others' are of variance 1
        self.one_early = name == "ddim"  # as diffusers' TextToVideoZeroPipeline, whose scheduler it is

    def __len__(self) -> int:
        return len(self.timesteps)

    def sigma(self, state: int) -> float:
        """The noise in a state, where the clean latents have a factor of 1."""
        if hasattr(self.base, "sigmas"):
            return float(self.base.sigmas[state])
        return self._sigma_at(int(self.timesteps[state]))

    def _sigma_at(self, timestep: int) -> float:
        """The noise at a timestep of the schedule."""
        abar = float(self.schedule.alphas_cumprod[max(timestep, 0)].clamp(min=SMALLEST_SIGNAL))
        return math.sqrt(1 / abar - 1)

    def split(self, t0: float, t1: float) -> tuple[int, int]:
        """The states (i1, i0) that are nearest to t1 and t0; see `noise.split`."""
        states = torch.cat([self.timesteps.cpu().float(), torch.tensor([-torch.inf])])  # the clean one is none of them
        return split(states, t0, t1, lambda timesteps: timesteps, len(self.schedule.alphas_cumprod))

    def start(self, noise: Tensor) -> Tensor:
        """State 0, of standard normal noise."""
        return noise * float(self.base.init_noise_sigma)

    def forward(self, x: Tensor, i0: int, i1: int, noise: Tensor) -> Tensor:
        """Take latents of state i0 back to the noisier state i1 by fresh noise, like x."""
        before, after = self.sigma(i0), self.sigma(i1)
        if self.exploding:
            return forward(x, before, after, noise)
        x = x * math.sqrt(1 + before**2)
        if self.one_early:
            early = [self._sigma_at(int(self.timesteps[state]) - 1) for state in (i0, i1)]
            x = forward_one_early(x, (before, after), early, noise)
        else:
            x = forward(x, before, after, noise)
        return x / math.sqrt(1 + after**2)

    def run(self, x: Tensor, begin: int, end: int, predict: Predict, kept: int | None = None) -> tuple[Tensor, Tensor]:
        """Denoise from one state to another.

        Returns:
            The latents at `end`, and at `kept`, which is `begin` where it is None.
        """
        scheduler: Any = copy.deepcopy(self.base)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin)
        at_kept = x
        for i in range(begin, end):
            if i == kept:
                at_kept = x
            t = self.timesteps[i]
            prediction = predict(scheduler.scale_model_input(x, t), t, i)
            x = scheduler.step(prediction, t, x, return_dict=False)[0]
        return x, at_kept
