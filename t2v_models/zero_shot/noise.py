"""Noise by frame number, and noise added between two timesteps.

Source: Khachatryan et al. 2023, Text2Video-Zero (arXiv:2303.13439), section 3.3.1, steps 1 and 4. Latents are in the space
where they are the clean latents plus sigma times noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import T2VError


def frame_noise(seed: int, frame_ids: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal noise of each frame, which depends on the seed and the frame's number alone.

    Frame 0 gets the noise that its sampling begins with, frame k the noise that takes its warped latents back to t1. All
    are drawn in the order of their numbers from one generator, as diffusers' TextToVideoZeroPipeline does; neither the
    number of frames nor how they are cut into chunks changes a bit.

    Args:
        seed: of the video.
        frame_ids: numbers of the wanted frames, in any order.
        shape: (c, h, w) of one frame.

    Returns:
        (f, c, h, w) float32, on the CPU.

    Raises:
        T2VError: for a negative number of a frame.
    """
    if min(frame_ids, default=0) < 0:
        raise T2VError(f"A frame has the number {min(frame_ids)}: 0 is the first.")
    generator = torch.Generator().manual_seed(seed)
    wanted: dict[int, Tensor] = {}
    for number in range(max(frame_ids, default=-1) + 1):
        drawn = torch.randn(tuple(shape), generator=generator)
        if number in frame_ids:
            wanted[number] = drawn
    return torch.stack([wanted[number] for number in frame_ids]) if wanted else torch.empty(0, *shape)


def forward(x: Tensor, sigma_0: Tensor | float, sigma_1: Tensor | float, noise: Tensor) -> Tensor:
    """Take latents with noise of sigma_0 back to the larger sigma_1: x + sqrt(sigma_1^2 - sigma_0^2) noise; all like x."""
    before, after = (torch.as_tensor(sigma, dtype=torch.float64) for sigma in (sigma_0, sigma_1))
    return x + (after**2 - before**2).sqrt().to(x) * noise.to(x)


def forward_one_early(x: Tensor, sigmas: Sequence[float], early: Sequence[float], noise: Tensor) -> Tensor:
    """As `forward`, by the alphas of the timesteps one below, as diffusers' TextToVideoZeroPipeline multiplies them.

    Args:
        x: latents with noise of sigmas[0].
        sigmas: of t0 and of t1.
        early: of the timesteps one below t0 and t1.
        noise: like x.
    """
    norms, early_norms = ([(1 + sigma**2) ** 0.5 for sigma in pair] for pair in (sigmas, early))
    moved: Tensor = forward(x * early_norms[0] / norms[0], early[0], early[1], noise) * norms[1] / early_norms[1]
    return moved


def split(
    sigmas: Tensor, t0: float, t1: float, timestep: Callable[[Tensor], Tensor], timesteps: int = 1000
) -> tuple[int, int]:
    """Where a table of sigmas is cut: where frames part (t1), and where the first frame is warped (t0).

    Args:
        sigmas: (steps + 1,) of a run, from noisy to clean.
        t0: 0..1, as a part of the schedule's timesteps; 0.88 in the paper.
        t1: likewise, larger; 0.94 in the paper.
        timestep: from sigmas to the schedule's timesteps.
        timesteps: of the schedule.

    Returns:
        (i1, i0): the entries whose timesteps are nearest to t1 and t0, i1 < i0.

    Raises:
        T2VError: where the two are no numbers of that order, or no step of the run lies between them.
    """
    if not 0 <= t0 < t1 <= 1:
        raise T2VError(f"t0 is {t0} and t1 is {t1}: 0 <= t0 < t1 <= 1 is wanted, 0.88 and 0.94 as a rule.")
    states = timestep(sigmas).double().flatten()
    i1, i0 = (int((states - share * timesteps).abs().argmin()) for share in (t1, t0))
    if i1 >= i0:
        raise T2VError(
            f"t0 {t0:g} and t1 {t1:g} fall on the same of {len(sigmas) - 1} steps: take more steps, or a smaller t0."
        )
    return i1, i0
