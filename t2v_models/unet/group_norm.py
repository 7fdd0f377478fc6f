"""Group normalisation of feature maps in channels-last memory, where torch's own kernels are slow or inexact.

On a GPU torch copies such maps to channels-first memory and back: `on_gpu` does not. On a CPU torch takes a variance as
E[x²] - E[x]², summed in one go, which loses its digits where a mean is large beside the deviation: `on_cpu` does not. A
group of one or two channels often has such a mean, since a bias or a timestep embedding is the same for all its pixels;
in a group of six channels or more the differences between the channels are a deviation of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

Normalise = Callable[[Tensor, int, Tensor, Tensor, float], Tensor]
"""``normalise(x, groups, weight, bias, eps)``: x (n, c, h, w) in channels-last memory -> the same shape and memory."""

LARGE = 2**23
"""Elements from which on a GPU's time counts, not that of its many small calls."""

FEW_CHANNELS = 5
"""Channels of a group up to which torch's error on a CPU is more than twice that of its channels-first kernel, measured
at the output of whole UNets of random weights: 24 times with 1 channel, 4.2 with 2, 3.9 with 4, 1.6 with 5, 1.0 with 10."""

SMALL = 2**15
"""Elements up to which a CPU is faster with a channels-first copy than with the calls of `on_cpu`."""

LONG = 2**10
"""Pixels of a sample from which one call for each sample is faster."""

BLOCK = 2**18
"""Elements that a CPU works on at once, so that they stay in its cache."""


def better_than_torchs(x: Tensor, groups: int) -> Normalise | None:
    """The function to normalise x with, (n, c, h, w); None where torch's own is best."""
    if x.device.type == "cuda":  # a mean in bfloat16 has too few digits for `on_gpu`
        return on_gpu if x.numel() >= LARGE and x.dtype == torch.float16 and not torch.is_grad_enabled() else None
    if x.device.type == "cpu" and not x.is_contiguous() and x.dtype != torch.float64:
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

    Variances are those of the differences from the mean, channel by channel; channels and slices are put together in
    float64. Source: Chan et al. 1983, Algorithms for Computing the Sample Variance.
    """
    if torch.is_grad_enabled() or x.numel() <= SMALL:
        out = F.group_norm(x.flatten(2), groups, weight, bias, eps)  # torch copies what has three axes
        return out.view(x.shape).contiguous(memory_format=torch.channels_last)
    n, c = x.shape[:2]
    rows = x.movedim(1, -1)  # n … c
    moments = _moments_of_many if rows[0].numel() < LONG * c else _moments_of_long
    mean, variance = (part.double().view(n, -1, groups, c // groups) for part in moments(rows.flatten(1, 2)))
    group_mean = mean.mean((1, 3), keepdim=True)
    apart = mean - group_mean
    group_variance = torch.addcmul(variance, apart, apart).mean((1, 3), keepdim=True)
    scale = ((group_variance + eps).rsqrt() * weight.view(groups, -1)).float()
    shift = (
        bias.view(groups, -1) - group_mean * scale
    ).float()  # with the rounded scale, so that x = mean gives the bias
    scale, shift = scale.view(n, 1, 1, c), shift.view(n, 1, 1, c)
    if x.dtype == torch.float32:
        return torch.addcmul(shift, rows, scale).movedim(-1, 1)
    out = torch.empty_like(x)
    size = max(1, BLOCK // rows[0].numel())
    blocks = (each.split(size) for each in (scale, shift, rows, out.movedim(1, -1)))
    for scale, shift, source, target in zip(*blocks, strict=True):
        torch.addcmul(shift, source, scale, out=target)
    return out


def _moments_of_many(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of every channel. rows: (n, r, c) -> (n, 1, c), (n, 1, c)."""
    means, variances = [], []
    for block in rows.split(max(1, BLOCK // rows[0].numel())):
        means.append(block.mean(1, keepdim=True, dtype=torch.float32))
        differences = F.mse_loss(block, means[-1].expand_as(block), reduction="none")
        variances.append(differences.mean(1, keepdim=True))
    return torch.cat(means), torch.cat(variances)


def _moments_of_long(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of every channel in every one of k parts. rows: (n, r, c) -> (n, k, c), (n, k, c)."""
    r, c = rows.shape[1:]
    k = math.gcd(r, 2 ** (r.bit_length() // 2))  # sums of about sqrt(r) numbers: long ones lose digits
    means, variances = [], []
    for sample in rows:
        columns = rearrange(sample.float(), "(r k) c -> 1 (k c) r 1", k=k)
        mean, variance = torch.batch_norm_update_stats(columns, None, None, 0.0)
        means.append(mean.view(k, c))
        variances.append(variance.view(k, c))
    return torch.stack(means), torch.stack(variances)


class GroupNorm(nn.GroupNorm):
    """torch's layer, with the functions of this module where they are better."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (n, c, h, w) -> the same shape."""
        normalise = better_than_torchs(x, self.num_groups)
        if normalise is None:
            return super().forward(x)
        return normalise(x, self.num_groups, self.weight, self.bias, self.eps)
