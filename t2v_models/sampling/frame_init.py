"""Noise that holds the slow changes of given frames, so that any text-to-video model begins with a picture's layout.

Source: Ren et al. 2024, ConsistI2V (arXiv:2402.04324), section 3.3, FrameInit. Its authors use it with a network that was
trained on first frames; with other models it gives the colours and the composition, and no frame is kept exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .noise import low_pass, mix_frequencies
from .schedule import NoiseSchedule

ABAR, CUTOFF = 0.0232, 0.25
"""The share of signal that ConsistI2V leaves in the frames, by timestep 850 of Stable Diffusion's schedule; and its stop
frequency in space and in time."""


def usual_timestep(schedule: NoiseSchedule) -> int:
    """The noisiest timestep with as much signal as ConsistI2V's 850: that number with Stable Diffusion's schedule."""
    return int((schedule.alphas_cumprod >= ABAR).sum()) - 1


def frame_init_noise(
    noise: Tensor, still: Tensor, schedule: NoiseSchedule, timestep: int | None = None, cutoff: float = CUTOFF
) -> Tensor:
    """Put the slow changes of noised frames in the place of the noise's own.

    Args:
        noise: (b, c, t, h, w) standard normal; it noises the frames, too.
        still: (b, c, t, h, w) clean latents of the frames, such as a picture's repeated; or (b, c, 1, h, w), repeated here.
        schedule: the model's.
        timestep: to which the frames are noised; a lower one leaves more of them. `usual_timestep` where None.
        cutoff: the gaussian filter's stop frequency, 0..1; a higher one leaves more of the frames, 0 nothing.

    Returns:
        (b, c, t, h, w) to begin a sampling run with, of noise's type.
    """
    timestep = usual_timestep(schedule) if timestep is None else timestep
    noised = schedule.add_noise(still.to(noise).expand_as(noise), noise, torch.tensor(timestep))
    shape = (noise.shape[2], noise.shape[3], noise.shape[4])
    return mix_frequencies(noised, noise, low_pass(shape, "gaussian", spatial=cutoff, temporal=cutoff))
