"""What every way to make a film works with: the model's guided prediction for any frames, and how much is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..arguments import is_guided
from ..pipeline import Pipeline
from ..sampling.ddim import ddim_step
from ..sampling.guidance import classifier_free
from ..sampling.schedule import CLEAN
from ..sampling.story import Told, same_form
from ..sampling.windows import together

if TYPE_CHECKING:
    from .film import Film
    from .settings import Settings


class Denoiser:
    """A pipeline's guided prediction for any frames of a story, each at a noise level of its own."""

    def __init__(self, pipeline: Pipeline, positive: Told, negative: Told, settings: Settings, fps: float) -> None:
        self.pipeline, self.settings, self.fps = pipeline, settings, fps
        self.positive, self.negative = positive, negative
        self.schedule = pipeline.schedule
        self.device = pipeline.device
        self.timesteps: Tensor = self.schedule.timesteps(settings.steps)

    @property
    def guided(self) -> bool:
        """Whether a negative prompt is asked, too."""
        return is_guided(self.pipeline, self.settings.guidance_scale)

    def __call__(self, x: Tensor, levels: Tensor, numbers: Tensor, options: dict[str, Any] | None = None) -> Tensor:
        """x: (b, 4, t, h, w), levels and numbers: (b, t) -> the prediction, like x; clips in groups, for their memory."""
        unet, b, most = self.pipeline.unet, x.shape[0], together(*x.shape[2:], self.device)
        if b > most:
            groups = zip(x.split(most), levels.split(most), numbers.split(most), strict=True)
            return torch.cat([self(*group, options) for group in groups])
        context = self.positive.at(numbers)
        if self.guided:
            context = torch.cat(same_form(self.negative.at(numbers), context, x.shape[2]))
        if context.ndim == 3 and torch.equal(levels, levels[:, :1].expand_as(levels)):
            levels = levels[:, 0]
        conditions = self.pipeline.conditions(levels, self.fps, self.settings.guidance_scale)
        prediction = unet(x.to(unet.dtype), levels.to(self.device), context, options=options, **conditions).float()
        self.pipeline.check_finite(prediction)
        if not self.guided:
            return prediction
        uncond, cond = prediction.chunk(2)
        return classifier_free(cond, uncond, self.settings.guidance_scale)

    def at_once(self, x: Tensor, i: int, options: dict[str, Any] | None = None) -> Tensor:
        """x: (1, 4, t, h, w), all frames of a film or its first ones -> the prediction at step i, in one pass."""
        frames = x.shape[2]
        levels = self.timesteps[i].expand(1, frames)
        return self(x.to(self.device), levels, torch.arange(frames)[None], options).cpu()

    def clean(self, x: Tensor, levels: Tensor, prediction: Tensor) -> Tensor:
        """What becomes of x, (b, 4, t, h, w), at levels, (b, t), by that prediction."""
        return self.schedule.to_clean(x, prediction, levels)[0]

    def step(self, x: Tensor, i: int, prediction: Tensor) -> Tensor:
        """x after DDIM's step i; at the end everything is signal."""
        last = i + 1 == len(self.timesteps)
        after = self.timesteps.new_tensor(CLEAN) if last else self.timesteps[i + 1]
        return ddim_step(x, prediction, self.schedule, self.timesteps[i], after, last=last)


class Work:
    """How much of a film is done, counted in clips that went through the model once; what was kept is done."""

    def __init__(self, film: Film, total: int) -> None:
        self.film, self.total, self.done = film, total, 0

    def add(self, clips: int) -> None:
        """So many clips went through the model."""
        self.done += clips
        self.film.tick(self.done, self.total)

    def once(self, name: str, make: Callable[[], Tensor], clips: int) -> Tensor:
        """What the film's store has under that name, or what is made now, by so many clips."""
        end = self.done + clips
        latents = self.film.store.once(name, make)
        self.reach(end)
        return latents

    def reach(self, done: int) -> None:
        """At least so much of the film is done."""
        if self.done < done:
            self.add(done - self.done)
