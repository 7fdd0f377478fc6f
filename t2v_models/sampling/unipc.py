"""UniPC of order 2 as diffusers runs it. ComfyUI's own has order 3 and ends a little above zero noise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Evaluation = tuple[Tensor, Tensor]
"""A denoised sample and its sigma."""


def sample_unipc(
    model: Any,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Any = None,
    disable: bool | None = None,
) -> Tensor:
    """UniPC-2, data prediction, B2(h) = e^h - 1, for samples x = x_0 + sigma e as k-diffusion's samplers have them.

    Args:
        model: ``model(x, sigma, **extra_args)`` -> the denoised sample, like x.
        x: (b, …) a sample at sigmas[0].
        sigmas: (n + 1,) from noisy to clean.
        callback: called after every evaluation with a dictionary of x, i, sigma, sigma_hat and denoised.

    Returns:
        The sample at the last sigma, like x.

    Source: Zhao et al. 2023 (arXiv:2302.04867).
    """
    extra_args = extra_args or {}
    ones = x.new_ones([x.shape[0]])
    last: tuple[Tensor, Tensor, Tensor, int] | None = None  # sample, denoised and sigma before the last step; its order
    before: Evaluation | None = None  # of one step earlier
    steps = len(sigmas) - 1
    for i in range(steps):
        denoised = model(x, sigmas[i] * ones, **extra_args)
        if last is not None:
            x = _correct(*last, before, denoised, sigmas[i])
            before = (last[1], last[2])
        order = min(2, steps - i, i + 1)
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        last = (x, denoised, sigmas[i], order)
        x = _predict(x, denoised, sigmas[i], sigmas[i + 1], before if order == 2 else None)
    return x


def _predict(x: Tensor, denoised: Tensor, sigma: Tensor, next_sigma: Tensor, before: Evaluation | None) -> Tensor:
    """The sample at next_sigma, like x; by order 2 where the evaluation before is given."""
    shrink = next_sigma / sigma - 1.0  # e^-h - 1
    out = (next_sigma / sigma) * x - shrink * denoised
    if before is not None:
        step = (sigma / next_sigma).log()
        ratio = (sigma / before[1]).log() / step
        out = out - shrink * 0.5 * (before[0] - denoised) / ratio
    return out


def _correct(
    x: Tensor,
    start: Tensor,
    sigma: Tensor,
    order: int,
    before: Evaluation | None,
    denoised: Tensor,
    next_sigma: Tensor,
) -> Tensor:
    """Repeat the step from sigma to next_sigma with the denoised sample at its end. All samples are like x."""
    step = (sigma / next_sigma).log()
    shrink = next_sigma / sigma - 1.0
    out = (next_sigma / sigma) * x - shrink * start
    if order == 1 or before is None:
        return out - shrink * 0.5 * (denoised - start)
    phi = shrink / -step - 1.0
    b = torch.stack([phi / shrink, 2.0 * (phi / -step - 0.5) / shrink]).cpu().double()
    ratio = ((sigma / before[1]).log() / step).cpu().double()
    rows = torch.stack([torch.ones(2, dtype=torch.float64), torch.stack([ratio, torch.ones_like(ratio)])])
    weight = torch.linalg.solve(rows, b).to(x)
    corrected: Tensor = out - shrink * (weight[0] * (before[0] - start) / ratio.to(x) + weight[1] * (denoised - start))
    return corrected
