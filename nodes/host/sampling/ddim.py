"""DDIM of any eta in the host, as VideoCrafter and DynamiCrafter run it; core's "ddim" has no fresh noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ....t2v_models.sampling.ddim import Tables, sample_ddim
from ..models.model_sampling import exact, is_last, keeps_last_scale, tables_at


def sample_ddim_eta(
    model: Any,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Any = None,
    disable: bool | None = None,
    eta: float = 1.0,
    noise_sampler: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """A sampler of the host. eta: 0 for none, 1 for as much fresh noise as the diffusion process has."""
    extra_args = extra_args or {}
    model_sampling = model.inner_model.model_patcher.get_model_object("model_sampling")
    return sample_ddim(
        model,
        x,
        sigmas,
        run_tables(model_sampling, sigmas),
        eta=eta,
        noise_sampler=noise_sampler or fresh_noise(x, extra_args.get("seed") or 0),
        extra_args=extra_args,
        callback=callback,
    )


def run_tables(model_sampling: Any, sigmas: Tensor) -> Tables:
    """The schedule at a run's sigmas, (n + 1,), with the end that DynamiCrafter's rule gives it."""
    root, noise, scale = tables_at(model_sampling, sigmas)
    before, end = float(sigmas[-2]), float(sigmas[-1])
    if keeps_last_scale(model_sampling) and end > 0 and is_last(model_sampling, before, end):
        schedule = model_sampling.schedule
        root[-1], noise[-1] = schedule.alphas_cumprod[0].sqrt(), schedule.noise[0]
        scale[-1] = noise[-1] / exact(sigmas[-1]) / root[-1]
    return root, noise, root * scale


def fresh_noise(x: Tensor, seed: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Noise as the library's pipeline draws it for one clip: after the first noise, frame by frame.

    x: (b, c, t, h, w), or (t, c, h, w) with the frames as the batch.
    """
    generator = torch.Generator().manual_seed(seed % 2**64)
    torch.randn(x.shape, generator=generator)  # the noise that the clip began with

    def sampler(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        if x.ndim != 5:
            return torch.randn(x.shape, generator=generator).to(x)
        clips = [torch.randn(clip.transpose(0, 1).shape, generator=generator).transpose(0, 1) for clip in x]
        return torch.stack(clips).to(x)

    return sampler
