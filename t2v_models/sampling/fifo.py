"""Endless video: a queue of frames, each one timestep noisier than the one before it.

Every round denoises every frame by one timestep, hands out the first, which is finished, and appends a frame of noise. So
memory does not depend on the length. Source: Kim et al. 2024, FIFO-Diffusion (arXiv:2405.11473), with its
lookahead denoising; written from the paper's equations.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import T2VError
from .ddim import ddim_step
from .schedule import NoiseSchedule

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``predict(x, timesteps, numbers)``: x (k, c, f, h, w), timesteps (k, f), the frames' numbers (k, f) -> like x."""


class Fifo:
    """An endless iterator over the frames that follow a clip.

    Args:
        predict: the model's (guided) prediction for windows of frames, each at a timestep of its own.
        clip: (1, c, t, h, w) clean frames to continue, at least one; they stay as they are.
        timesteps: (n,) from noisy to clean, see `t2v_models.sampling.timesteps.ddim_timesteps`; n is a multiple of half
            a window, and is the length of the queue.
        schedule: the model's.
        window: frames in one call of the model; an even number. The first half is cleaner than the frames whose
            prediction counts (lookahead), so each frame is denoised once per round.
        generator: of the noise (a CPU one).
        end: the timestep behind the last one: 0, or `t2v_models.sampling.schedule.CLEAN`.

    Iterating yields (1, c, 1, h, w), the next finished frame.

    Raises:
        T2VError: for a window that cannot slide over that queue, or an empty clip.
    """

    def __init__(
        self,
        predict: Predict,
        clip: Tensor,
        timesteps: Tensor,
        schedule: NoiseSchedule,
        *,
        window: int,
        generator: torch.Generator,
        end: int = 0,
    ) -> None:
        half, count = window // 2, len(timesteps)
        if window < 2 or window % 2 or count % half:
            raise T2VError(
                f"A window of {window} frames over {count} steps: an even window is wanted, and as many steps as make "
                f"whole halves of it, {max(1, round(count / max(half, 1))) * max(half, 1)} for one."
            )
        if clip.ndim != 5 or clip.shape[0] != 1 or not clip.shape[2]:
            raise T2VError(
                f"The clip to continue has shape {tuple(clip.shape)}: (1, c, t, h, w) is wanted, t at least 1."
            )
        self.predict, self.clip, self.schedule, self.window, self.generator = predict, clip, schedule, window, generator
        self.timesteps = timesteps.flip(0)[None].to(clip.device)  # (1, n): the front of the queue is the cleanest
        self.following = torch.cat([self.timesteps.new_tensor([[end]]), self.timesteps[:, :-1]], dim=1)
        length = clip.shape[2]
        self.numbers = torch.arange(length - count, length, device=clip.device)
        self.noises = torch.cat([self._fresh() for _ in range(count)], dim=2)
        known = torch.cat([self._known(int(n)) for n in self.numbers], dim=2)
        self.queue = schedule.add_noise(known, self.noises, self.timesteps)
        self.done = torch.cat([self._known(int(self.numbers[0]) - half + i) for i in range(half)], dim=2)

    def __iter__(self) -> Fifo:
        return self

    def __next__(self) -> Tensor:
        while True:
            number, finished = int(self.numbers[0]), self._round()
            if number >= self.clip.shape[2]:
                return finished

    def state(self) -> dict[str, Tensor]:
        """Everything that the next frames depend on, besides the arguments, as tensors by name."""
        kept = {name: getattr(self, name) for name in ("queue", "done", "noises", "numbers")}
        return {**kept, "generator": self.generator.get_state()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state`: the next frames are equal bit for bit."""
        for name in ("queue", "done", "noises", "numbers"):
            setattr(self, name, state[name].to(self.clip.device))
        self.generator.set_state(state["generator"])

    def _round(self) -> Tensor:
        """Denoise every frame by one timestep; returns the front one, which is finished, (1, c, 1, h, w)."""
        half, count, device = self.window // 2, self.timesteps.shape[1], self.clip.device
        line = torch.cat([self.done, self.queue], dim=2)
        line_timesteps = torch.cat([torch.zeros_like(self.timesteps[0, :half]), self.timesteps[0]])
        line_numbers = torch.cat([self.numbers[:1] - half + torch.arange(half, device=device), self.numbers])
        spans = [slice(start, start + self.window) for start in range(0, count, half)]
        prediction = self.predict(
            torch.cat([line[:, :, span] for span in spans]),
            torch.stack([line_timesteps[span] for span in spans]),
            torch.stack([line_numbers[span] for span in spans]).clamp(min=0),
        )[:, :, half:]
        prediction = torch.cat(torch.split(prediction, 1), dim=2)
        self.queue = ddim_step(self.queue, prediction, self.schedule, self.timesteps, self.following)
        for i, number in enumerate(self.numbers.tolist()):
            if number >= self.clip.shape[2]:
                break
            noise = self.noises[:, :, i : i + 1]
            here = self.following[:, i : i + 1]
            self.queue[:, :, i : i + 1] = self.schedule.add_noise(self._known(number), noise, here)
        first = int(self.numbers[0])
        finished = self.queue[:, :, :1].clone() if first >= self.clip.shape[2] else self._known(first)
        self.done = torch.cat([self.done, finished], dim=2)[:, :, 1:]
        fresh = self._fresh()
        self.noises = torch.cat([self.noises[:, :, 1:], fresh], dim=2)
        self.queue = torch.cat([self.queue[:, :, 1:], fresh], dim=2)
        self.numbers = self.numbers + 1
        return finished

    def _fresh(self) -> Tensor:
        shape = (*self.clip.shape[:2], 1, *self.clip.shape[3:])
        return torch.randn(shape, generator=self.generator).to(self.clip)

    def _known(self, number: int) -> Tensor:
        return self.clip[:, :, max(0, number) : max(0, number) + 1]
