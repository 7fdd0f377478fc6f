"""A model's guided prediction for any frames of a story."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..arguments import is_guided
from ..sampling.guidance import classifier_free
from ..sampling.scenes import FrameContexts, equal_shape
from ..sampling.schedule import CLEAN
from ..sampling.windows import together
from .model import FilmModel


class GuidedModel:
    """A model with one story's texts: it predicts any frames of that story, each at a timestep of its own.

    Args:
        model: the model.
        positive, negative: what each frame shows, and what it does not.
        steps: of DDIM.
        guidance_scale: 1 for none.
        fps: frames per second that the model is asked for, where it takes a frame rate.
    """

    def __init__(
        self,
        model: FilmModel,
        positive: FrameContexts,
        negative: FrameContexts,
        *,
        steps: int,
        guidance_scale: float,
        fps: float,
    ) -> None:
        self.model, self.guidance_scale, self.fps = model, guidance_scale, fps
        self.positive, self.negative = positive, negative
        self.guided = is_guided(model, guidance_scale)
        self.conditions = model.conditions(fps, guidance_scale)
        self.schedule, self.device = model.schedule, model.device
        self.timesteps = model.schedule.timesteps(steps)
        self.following = [*self.timesteps[1:], self.timesteps.new_tensor(CLEAN)]

    def __call__(self, x: Tensor, timesteps: Tensor, numbers: Tensor, options: dict[str, Any] | None = None) -> Tensor:
        """Predict some clips, in groups that fit a call of the UNet.

        Args:
            x: (b, 4, t, h, w) noisy latents.
            timesteps: (b, t), one per frame.
            numbers: (b, t), the frames' numbers in the film.
            options: of the UNet.

        Returns:
            What the model predicts (noise or velocity) under guidance, like x, in float32.
        """
        most = together(x.shape[2], x.shape[3], x.shape[4], self.device)
        if len(x) > most:
            groups = zip(torch.split(x, most), torch.split(timesteps, most), torch.split(numbers, most), strict=True)
            return torch.cat([self(*group, options) for group in groups])
        context = self._context(numbers)
        if context.ndim == 3 and torch.equal(timesteps, timesteps[:, :1].expand_as(timesteps)):
            timesteps = timesteps[:, 0]
        prediction = self.model.predict(x, timesteps, context, self.conditions, options)
        if not self.guided:
            return prediction
        uncond, cond = prediction.chunk(2)
        return classifier_free(cond, uncond, self.guidance_scale)

    def _context(self, numbers: Tensor) -> Tensor:
        """The texts of frames (b, t): (b, n, d), or (b, t, n, d) where they change; guided, (2b, …), negatives first."""
        context = self.positive.at(numbers)
        if not self.guided:
            return context
        return torch.cat(equal_shape(self.negative.at(numbers), context, numbers.shape[1]))

    def all_frames(self, x: Tensor, timesteps: Tensor, options: dict[str, Any] | None = None) -> Tensor:
        """Predict all frames of a film, or its first ones, in one pass. x: (1, 4, t, h, w) at timesteps (1, t) -> like x."""
        return self(x.to(self.device), timesteps, torch.arange(x.shape[2])[None], options).cpu()

    def clean(self, x: Tensor, timesteps: Tensor, prediction: Tensor) -> Tensor:
        """The clean latents that a prediction implies. x: (b, 4, t, h, w) at timesteps (b, t) -> like x."""
        return self.schedule.to_clean(x, prediction, timesteps)[0]
