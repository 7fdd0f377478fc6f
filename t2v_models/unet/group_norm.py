"""Group normalisation of feature maps in channels-last memory, where torch's own kernels are slow or inexact.

On a GPU torch copies such maps to channels-first memory and back: `on_gpu` does not. On a CPU torch computes a variance
as E[x^2] - E[x]^2 from plain sums, which loses its digits where a mean is large beside the deviation: `on_cpu` does not.
A group of one or two channels often has such a mean, since a bias or a timestep embedding adds one number to all pixels
of a channel. In a larger group these numbers differ from channel to channel, which makes the deviation large as well.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Normalise = Callable[[Tensor, int, Tensor, Tensor, float], Tensor]
"""``normalise(x, groups, weight, bias, eps)``: x (n, c, h, w) in channels-last memory -> the same shape and memory."""

LARGE = 2**23
"""Elements from which on a GPU's time counts, not that of its many small calls."""

FEW_CHANNELS = 4
"""Channels per group up to which torch's error on a CPU is more than twice that of its channels-first kernel, measured at
the output of UNets with random weights: up to 24 times with 1 channel, 4.2 with 2, 3.9 with 4, 1.6 with 5, 1.0 with 10."""

SMALL = 2**15
"""Elements up to which a copy to channels-first memory and back is faster on a CPU than the steps of `on_cpu`."""

BLOCK = 2**18
"""Elements that a CPU works on at once, so that they stay in its cache."""


def better_than_torchs(x: Tensor, groups: int) -> Normalise | None:
    """The function that normalises x, (n, c, h, w), better than torch does; None where torch's own is best."""
    if x.device.type == "cuda" and x.dtype == torch.float16:  # a mean in bfloat16 has too few digits for `on_gpu`
        return on_gpu if x.numel() >= LARGE and not torch.is_grad_enabled() else None
    if x.device.type == "cpu" and x.dtype != torch.float64 and not x.is_contiguous():
        return on_cpu if x.shape[1] <= FEW_CHANNELS * groups else None
    return None


def on_gpu(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Group normalisation without a copy to channels-first memory; no gradients."""
    rows = x.movedim(1, -1).unflatten(-1, (groups, -1))  # n … g c/g
    over = [*range(1, x.ndim - 1), -1]
    mean = rows.mean(over, keepdim=True, dtype=torch.float32)
    std = rows.std(over, correction=0, keepdim=True).float()  # a variance may overflow
    scale = std.square_().add_(eps).rsqrt_() * weight.view(groups, -1)
    # the mean first: times the scale it may be more than half precision can hold, and has fewer digits than what is left
    out = rows - mean.to(x.dtype)
    shift = bias.view(groups, -1) + (mean.to(x.dtype) - mean) * scale  # what rounding has left of the mean
    return torch.addcmul(shift.to(x.dtype), out, scale.to(x.dtype), out=out).flatten(-2).movedim(-1, 1)


def on_cpu(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Group normalisation as exact as torch's channels-first kernel.

    A variance is the mean square of the differences from the mean. Those of single channels are combined in float64.
    Source: Chan et al. 1983, Algorithms for Computing the Sample Variance.
    """
    if torch.is_grad_enabled() or x.numel() <= SMALL:
        out = F.group_norm(x.flatten(2), groups, weight, bias, eps)  # torch copies tensors of three axes
        return out.view(x.shape).contiguous(memory_format=torch.channels_last)
    n, c = x.shape[:2]
    rows = x.movedim(1, -1)  # n h w c
    parts = x.shape[2] if rows[0].numel() > BLOCK else 1
    mean, variance = (
        moment.double().view(n, parts, groups, c // groups) for moment in _moments(rows.reshape(n * parts, -1, c))
    )
    group_mean = mean.mean((1, 3), keepdim=True)
    difference = mean - group_mean
    group_variance = torch.addcmul(variance, difference, difference).mean((1, 3), keepdim=True)
    scale = ((group_variance + eps).rsqrt() * weight.view(groups, -1)).float()
    shift = (
        bias.view(groups, -1) - group_mean * scale
    ).float()  # of the rounded scale, so that the mean becomes the bias
    scale, shift = scale.view(n, 1, 1, c), shift.view(n, 1, 1, c)
    if x.dtype == torch.float32:
        return torch.addcmul(shift, rows, scale).movedim(-1, 1)
    out = torch.empty_like(x)
    size = max(1, BLOCK // rows[0].numel())  # in blocks, since they are computed in float32
    blocks = (each.split(size) for each in (scale, shift, rows, out.movedim(1, -1)))
    for block_scale, block_shift, source, target in zip(*blocks, strict=True):
        torch.addcmul(block_shift, source, block_scale, out=target)
    return out


def _moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of every channel, in float32. rows: (m, r, c) -> (m, 1, c), (m, 1, c)."""
    means, variances = [], []
    for block in rows.split(max(1, BLOCK // rows[0].numel())):
        mean = block.mean(1, keepdim=True, dtype=torch.float32)
        squares = F.mse_loss(block, mean.expand_as(block), reduction="none")  # (block - mean)^2 in one step
        means.append(mean)
        variances.append(squares.mean(1, keepdim=True))
    return torch.cat(means), torch.cat(variances)


class GroupNorm(nn.GroupNorm):
    """torch's layer, with the functions of this module where they are better."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (n, c, h, w) -> the same shape."""
        normalise = better_than_torchs(x, self.num_groups)
        if normalise is None:
            return super().forward(x)
        return normalise(x, self.num_groups, self.weight, self.bias, self.eps)
