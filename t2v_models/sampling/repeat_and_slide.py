"""Frames after a picture, by a model that was trained on text alone: the picture is repeated, then the clip slides on.

The picture fills all frames of a clip but the last ones, and these are sampled while the known ones have the noise of the
step. Then the clip slides over the new frames, which are known from now on. Source: Ni et al. 2024, TI2V-Zero
(arXiv:2404.16306), "repeat and slide" with DDPM inversion and resampling; written from its equations. There, one frame is
new in every clip of 16: 15 frames cost 15 clips of 10 steps of 5 calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import T2VError
from .ddim import ddim_step
from .keyframes import PredictFrames
from .schedule import CLEAN, NoiseSchedule

KNOWN, RESAMPLE = 15, 4
"""TI2V-Zero's known frames in a clip of 16, and how often it repeats each step."""


def repeat_and_slide(
    predict: PredictFrames,
    first: Tensor,
    frames: int,
    timesteps: Tensor,
    schedule: NoiseSchedule,
    *,
    window: int = 16,
    known: int = KNOWN,
    resample: int = RESAMPLE,
    generator: torch.Generator | None = None,
    refresh: Callable[[Tensor], Tensor] | None = None,
    end: int = CLEAN,
) -> Tensor:
    """Sample a video of any length that begins with a given frame, which comes out exactly as it went in.

    Args:
        predict: the model, for clips of `window` frames.
        first: (b, c, 1, h, w) clean latents of the picture.
        frames: of the whole video, with the picture.
        timesteps: (n,) from noisy to clean.
        schedule: the model's.
        window: frames that the model sees at once.
        known: of them are known, 1 to window - 1: fewer are faster and move more, more hold the picture better.
        resample: how often each step is repeated from fresh noise, so that new frames agree with the known ones.
        generator: of the noise (a CPU one).
        refresh: ``refresh(latents)`` -> the new frames as the next clip takes them, like latents: TI2V-Zero decodes and
            encodes them again.
        end: the timestep behind the last one: `schedule.CLEAN`, or TI2V-Zero's 0.

    Returns:
        Clean latents, (b, c, frames, h, w).

    Raises:
        T2VError: for a number of known frames that leaves none to sample.
    """
    check_known(known, window)
    line = first.expand(-1, -1, known, -1, -1)
    made = [first]
    for start in range(1, frames, window - known):
        count = window - known
        new = sample_after(
            predict, line[:, :, -known:], count, timesteps, schedule, resample=resample, generator=generator, end=end
        )
        made.append(new[:, :, : frames - start])
        line = torch.cat([line, new if refresh is None else refresh(new)], dim=2)[:, :, -known:]
    return torch.cat(made, dim=2)


def sample_after(
    predict: PredictFrames,
    known: Tensor,
    count: int,
    timesteps: Tensor,
    schedule: NoiseSchedule,
    *,
    resample: int = RESAMPLE,
    generator: torch.Generator | None = None,
    end: int = CLEAN,
) -> Tensor:
    """Sample the frames that follow known ones, within one clip of the model.

    Every frame begins as the last known one with the noise of the first timestep ("DDPM inversion"). Each step takes the
    clip to the next timestep, where the known frames are put in their places, and back, `resample` times; then it goes on.

    Args:
        known: (b, c, k, h, w) clean latents; with k = 0 this is plain DDIM from noise.
        count: of the frames to sample.
        others: as in `repeat_and_slide`.

    Returns:
        Clean latents of the new frames, (b, c, count, h, w).
    """
    b, c, k, h, w = known.shape

    def fresh(frames: int) -> Tensor:
        return torch.randn((b, c, frames, h, w), generator=generator).to(known)

    x = fresh(k + count)
    if k:
        x = schedule.add_noise(known[:, :, -1:].expand_as(x), x, timesteps[0])
    for i, t in enumerate(timesteps):
        following = timesteps[i + 1] if i + 1 < len(timesteps) else timesteps.new_tensor(end)
        frame_times = t.expand(b, k + count).to(known.device)
        x = _with_known(x, schedule.add_noise(known, fresh(k), t))
        rounds = resample if k else 0
        cleaner = schedule.add_noise(known, fresh(k), following) if rounds else known
        for _ in range(rounds):
            stepped = ddim_step(x, predict(x, frame_times), schedule, t, following)
            x = schedule.add_more_noise(_with_known(stepped, cleaner), fresh(k + count), t, following)
        x = ddim_step(x, predict(x, frame_times), schedule, t, following)
    return x[:, :, k:]


def check_known(known: int, window: int) -> None:
    """T2VError unless a clip has known frames and new ones."""
    if not 1 <= known < window:
        raise T2VError(
            f"{known} known frames in a clip of {window}: 1 to {window - 1} are wanted, {max(1, window - 1)} hold the "
            "picture best."
        )


def calls_to_slide(frames: int, steps: int, *, window: int = 16, known: int = KNOWN, resample: int = RESAMPLE) -> int:
    """How many times `repeat_and_slide` calls the model."""
    return math.ceil((frames - 1) / (window - known)) * steps * (1 + resample)


def _with_known(x: Tensor, known: Tensor) -> Tensor:
    """A clip whose first frames are these."""
    return torch.cat([known, x[:, :, known.shape[2] :]], dim=2)
