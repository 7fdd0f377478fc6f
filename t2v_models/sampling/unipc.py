"""UniPC of order 2 as diffusers runs it; the host's own has order 3 and ends a little above zero noise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def sample_unipc(
    model: Any,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Any = None,
    disable: bool | None = None,
) -> Tensor:
    """UniPC-2, data prediction, B2(h) = e^h - 1, in variance-exploding terms: x = x_0 + sigma noise.

    Source: Zhao et al. 2023 (arXiv:2302.04867).
    """
    extra_args = extra_args or {}
    ones = x.new_ones([x.shape[0]])
    last: tuple[Tensor, Tensor, Tensor, int] | None = None  # sample, denoised and sigma before the last step; its order
    before: tuple[Tensor, Tensor] | None = None  # denoised and sigma one step earlier
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


def _predict(x: Tensor, denoised: Tensor, sigma: Tensor, next_sigma: Tensor, before: Any) -> Tensor:
    """From sigma to next_sigma; order 2 where the denoised sample before is given."""
    shrink = next_sigma / sigma - 1.0  # e^-h - 1
    out = (next_sigma / sigma) * x - shrink * denoised
    if before is not None:
        step = (sigma / next_sigma).log()
        ratio = (sigma / before[1]).log() / step
        out = out - shrink * 0.5 * (before[0] - denoised) / ratio
    return out


def _correct(
    x: Tensor, start: Tensor, sigma: Tensor, order: int, before: Any, denoised: Tensor, next_sigma: Tensor
) -> Tensor:
    """The step from sigma to next_sigma once more, now that the denoised sample at its end is known."""
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
    return out - shrink * (weight[0] * (before[0] - start) / ratio.to(x) + weight[1] * (denoised - start))
