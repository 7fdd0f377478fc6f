"""DDIM, with a timestep for every frame where a caller wants one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .schedule import NoiseSchedule


def ddim_step(
    x: Tensor,
    prediction: Tensor,
    schedule: NoiseSchedule,
    t: Tensor,
    t_next: Tensor,
    *,
    eta: float = 0.0,
    noise: Tensor | None = None,
    last: bool = False,
) -> Tensor:
    """One step from timesteps t to the cleaner timesteps t_next.

    Args:
        x: (b, c, frames, h, w) latents at t, as the network sees them.
        prediction: of the network (guided), like x.
        t, t_next: whole timesteps, one for all, (b,) or (b, frames); `schedule.CLEAN` is without noise.
        eta: 0 for a deterministic step; 1 adds as much fresh noise as the diffusion process.
        noise: standard normal, like x; needed where eta is not 0.
        last: whether this is the sampler's last step, where DynamiCrafter keeps its scale.

    Returns:
        Latents at t_next, like x.

    Source: Song et al. 2021 (arXiv:2010.02502), equations 12 and 16. The variance comes from abar without the scale, as
    in VideoCrafter's and DynamiCrafter's samplers.
    """
    clean, direction = schedule.to_clean(x, prediction, t)
    scale_at = t if last and schedule.keeps_last_scale else None
    signal, share = schedule.factors(t_next, x, scale_at=scale_at)
    if not eta:
        return signal * clean + share * direction
    if noise is None:
        raise ValueError("eta is not 0, and no noise is given.")
    variance = eta**2 * ddim_variance(schedule.abar(t, x), schedule.abar(t_next, x))
    return signal * clean + (share**2 - variance).clamp(min=0).sqrt() * direction + variance.sqrt() * noise


def ddim_variance(abar: Tensor, abar_next: Tensor) -> Tensor:
    """Variance of the fresh noise in a step of eta 1, from abar to abar_next. Source: as `ddim_step`, equation 16."""
    return (1 - abar_next) / (1 - abar) * (1 - abar / abar_next)


Tables = tuple[Tensor, Tensor, Tensor]
"""sqrt(alphas_cumprod), noise and signal of the network's input at every sigma of a run, (n,) float64 each."""


def sample_ddim(
    model: Callable[..., Tensor],
    x: Tensor,
    sigmas: Tensor,
    tables: Tables,
    *,
    eta: float = 1.0,
    noise_sampler: Callable[[Tensor, Tensor], Tensor],
    extra_args: dict[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], None] | None = None,
) -> Tensor:
    """`ddim_step` from sigma to sigma, for samples x = x_0 + sigma e as k-diffusion's samplers have them.

    Args:
        model: ``model(x, sigma)`` -> the denoised sample, like x.
        x: (b, …) a sample at sigmas[0].
        sigmas: (n + 1,) from noisy to clean.
        tables: see `Tables`. Where sqrt(alphas_cumprod) is 0, x is taken for pure noise.
        eta: see `ddim_step`.
        noise_sampler: ``noise_sampler(sigma, sigma_next)`` -> standard normal, like x.

    Source: as `ddim_step`.
    """
    root, noise, signal = tables
    ones = x.new_ones([x.shape[0]])
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * ones, **(extra_args or {}))
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        if sigmas[i + 1] == 0:
            x = denoised
            continue
        direction = (x - denoised if root[i] > 0 else x) / sigmas[i]
        variance = eta**2 * ddim_variance(root[i] ** 2, root[i + 1] ** 2)
        share = (noise[i + 1] ** 2 - variance).clamp(min=0).sqrt() / signal[i + 1]
        x = denoised + share.to(x) * direction
        if eta:
            x = x + (variance.sqrt() / signal[i + 1]).to(x) * noise_sampler(sigmas[i], sigmas[i + 1])
    return x
