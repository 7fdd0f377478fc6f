"""A sampler's steps for a batch of videos: diffusers' schedulers, and DDIM over schedules that diffusers lacks.

All solvers have the same four methods, see `Solver`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from inspect import signature
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import T2VError
from .ddim import ddim_step
from .schedule import CLEAN, NoiseSchedule
from .schedulers import build_scheduler, check_scheduler, set_steps


class Solver(Protocol):
    """Takes a batch of latents (b, c, frames, h, w) from noise to clean, one timestep after the other."""

    timesteps: Tensor
    """(n,) from noisy to clean, those that are left of a run that begins with a video."""

    def start(self, noise: Tensor, clean: Tensor | None = None) -> Tensor:
        """The first latents, of standard normal noise alone or of clean latents with noise; all of one shape."""

    def model_input(self, x: Tensor, t: Tensor) -> Tensor:
        """What the network sees of the latents x at timestep t, like x."""

    def step(self, prediction: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The latents after timestep t, by the network's (guided) prediction; all of one shape."""

    def finish(self, x: Tensor) -> Tensor:
        """The latents to decode, of those that the last step left, like x."""


def make_solver(
    name: str,
    schedule: NoiseSchedule,
    steps: int,
    generators: Sequence[torch.Generator],
    *,
    strength: float = 1.0,
    eta: float = 0.0,
    device: torch.device | str = "cpu",
) -> Solver:
    """The solver of that name for a model's schedule.

    Args:
        name: a key of `t2v_models.sampling.schedulers.SCHEDULERS`.
        schedule: the model's.
        steps: of a whole run.
        generators: one per video, on the CPU, for noise that is added on the way.
        strength: the share of the steps that is done, 1 for all; the last ones.
        eta: 0..1, fresh noise in DDIM's steps; other solvers have none or their own.
        device: of the timesteps.

    Raises:
        T2VError: for a name that is not known, more steps than this solver can take, or a strength that leaves none.
    """
    check_scheduler(name)
    if first_step(steps, strength) == steps:
        raise T2VError(f"strength {strength} of {steps} steps leaves no step to do: raise one of them.")
    if name == "ddim" and schedule.is_scaled:
        return ScaledDDIM(schedule, steps, generators, strength=strength, eta=eta, device=device)
    return DiffusersSolver(name, schedule, steps, generators, strength=strength, eta=eta, device=device)


def first_step(steps: int, strength: float) -> int:
    """The number of the first step that is done at that strength. Source: diffusers' image to image pipelines."""
    return steps - min(int(steps * strength), steps)


class DiffusersSolver:
    """diffusers' scheduler, one for each video: several of them remember the steps before."""

    def __init__(
        self,
        name: str,
        schedule: NoiseSchedule,
        steps: int,
        generators: Sequence[torch.Generator],
        *,
        strength: float,
        eta: float,
        device: torch.device | str,
    ) -> None:
        self.schedule, self.generators, self.eta = schedule, generators, eta
        config, self.input_scale = schedule.variance_preserving()
        self.base = build_scheduler(name, config)
        set_steps(self.base, name, steps, device)
        begin = first_step(steps, strength) * getattr(self.base, "order", 1)
        self.timesteps = self.base.timesteps[begin:]
        self.schedulers = [copy.deepcopy(self.base) for _ in generators]
        for each in self.schedulers:
            if hasattr(each, "set_begin_index"):  # set, not searched: of many steps two may round to one timestep
                each.set_begin_index(begin)

    def start(self, noise: Tensor, clean: Tensor | None = None) -> Tensor:
        first = self.timesteps[:1]
        if clean is not None:
            videos = zip(self.schedulers, clean, noise, strict=True)
            return torch.cat([each.add_noise(c[None], n[None], first) for each, c, n in videos])
        noise = noise * self.base.init_noise_sigma
        # the originals begin on noise of variance one as the network sees it
        return noise if self.input_scale is None else noise / self.input_scale[int(first)]

    def model_input(self, x: Tensor, t: Tensor) -> Tensor:
        videos = zip(self.schedulers, x, strict=True)
        scaled = torch.cat([each.scale_model_input(video[None], t) for each, video in videos])
        return scaled if self.input_scale is None else scaled * self.input_scale[int(t)]

    def step(self, prediction: Tensor, x: Tensor, t: Tensor) -> Tensor:
        if self.schedule.is_scaled:
            seen = self.model_input(x, t)
            prediction = self.schedule.to_variance_preserving(seen, prediction, t.long())
        videos = zip(self.schedulers, prediction, x, self.generators, strict=True)
        return torch.stack([_diffusers_step(*video, t, self.eta) for video in videos])

    def finish(self, x: Tensor) -> Tensor:
        if not self.schedule.keeps_last_scale:
            return x
        return x * float(self.schedule.scale[int(self.timesteps[-1])])


class ScaledDDIM:
    """DDIM as VideoCrafter and DynamiCrafter run it: on latents as their networks see them, with their scale.

    diffusers' DDIM can express neither their fresh noise nor their velocities. Source: `ddim_step`.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        steps: int,
        generators: Sequence[torch.Generator],
        *,
        strength: float,
        eta: float,
        device: torch.device | str,
    ) -> None:
        self.schedule, self.generators, self.eta = schedule, generators, eta
        self.timesteps = schedule.timesteps(steps)[first_step(steps, strength) :].to(device)
        end = CLEAN if schedule.config.get("set_alpha_to_one", False) else 0
        self.following = [*self.timesteps[1:], self.timesteps.new_tensor(end)]
        self.done = 0

    def start(self, noise: Tensor, clean: Tensor | None = None) -> Tensor:
        return noise if clean is None else self.schedule.add_noise(clean, noise, self.timesteps[0])

    def model_input(self, x: Tensor, t: Tensor) -> Tensor:
        return x

    def step(self, prediction: Tensor, x: Tensor, t: Tensor) -> Tensor:
        following, self.done = self.following[self.done], self.done + 1
        noise = torch.stack([_frames_noise(x[0], each) for each in self.generators]) if self.eta else None
        last = self.done == len(self.timesteps)
        return ddim_step(x, prediction, self.schedule, t, following, eta=self.eta, noise=noise, last=last)

    def finish(self, x: Tensor) -> Tensor:
        return x


def _diffusers_step(
    scheduler: Any, prediction: Tensor, x: Tensor, generator: torch.Generator, t: Tensor, eta: float
) -> Tensor:
    """One scheduler step of one video, (c, frames, h, w); frames are its batch, as in diffusers' pipelines."""
    taken = signature(scheduler.step).parameters
    extra = {name: value for name, value in (("generator", generator), ("eta", eta)) if name in taken}
    frames: Tensor = scheduler.step(prediction.transpose(0, 1), t, x.transpose(0, 1), return_dict=False, **extra)[0]
    return frames.transpose(0, 1)


def _frames_noise(video: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise like a video, (c, frames, h, w), drawn in the order of diffusers' pipelines."""
    shape = (video.shape[1], video.shape[0], *video.shape[2:])
    return torch.randn(shape, generator=generator).to(video).transpose(0, 1)
