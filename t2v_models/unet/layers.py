"""The convolutional half of the UNet, and the layout that all of it shares.

Feature maps are ``(b t) c h w`` in channels-last memory, that is ``b t h w c`` without gaps: a spatial convolution, the
tokens of a transformer, a normalisation over whole clips and a convolution over frames are then four views of one
buffer.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def timestep_embedding(timesteps: Tensor, dim: int, max_period: float = 10000.0) -> Tensor:
    """[cos, sin] of the timesteps at dim/2 frequencies. timesteps: (n,) -> (n, dim), float32."""
    half = dim // 2
    exponent = -math.log(max_period) * torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angle = timesteps[:, None].float() * exponent.exp()[None]
    embedding = torch.cat([angle.cos(), angle.sin()], dim=-1)
    return F.pad(embedding, (0, dim % 2))


def guidance_embedding(scale: Tensor, dim: int) -> Tensor:
    """[sin, cos] of 1000 * scale. scale: (n,) -> (n, dim), float32. Source: LCM (arXiv:2310.04378), T2V-Turbo."""
    half = dim // 2
    # rounded as the originals round: at a scale of 7.5 the angle is 7500, and float32 has few digits left for it
    exponent = torch.arange(half, dtype=torch.float32, device=scale.device) * -(
        torch.tensor(10000.0).log() / (half - 1)
    )
    angle = 1000.0 * scale.float()[:, None] * exponent.exp()[None]
    return F.pad(torch.cat([angle.sin(), angle.cos()], dim=-1), (0, dim % 2))


def channels_last(x: Tensor) -> Tensor:
    """x: (n, c, h, w) in channels-last memory; no copy where it already is."""
    return x.contiguous(memory_format=torch.channels_last)


def frames_first(x: Tensor, frames: int) -> Tensor:
    """(b t) c h w -> b c t (h w): one row per frame, so that 2-D layers work on whole clips. A view."""
    n, c, h, w = x.shape
    return x.permute(0, 2, 3, 1).reshape(n // frames, frames, h * w, c).permute(0, 3, 1, 2)


def frames_folded(x: Tensor, height: int) -> Tensor:
    """b c t (h w) -> (b t) c h w: the inverse of `frames_first`. A view."""
    b, c, t, pixels = x.shape
    return x.permute(0, 2, 3, 1).reshape(b * t, height, pixels // height, c).permute(0, 3, 1, 2)


def activate(x: Tensor) -> Tensor:
    """SiLU, in place where no gradient needs x: x is always the fresh result of a normalisation."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def normalise_last(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Group normalisation of (n, c, *) whose channels lie last in memory, and stay there; no gradients."""
    rows = x.movedim(1, -1).unflatten(-1, (groups, -1))  # n … g c/g
    over = [*range(1, x.ndim - 1), -1]
    mean = rows.mean(over, keepdim=True, dtype=torch.float32)
    std = rows.std(over, correction=0, keepdim=True).float()  # a variance may overflow
    scale = std.square_().add_(eps).rsqrt_() * weight.view(groups, -1)
    # the mean first: times the scale it may be more than half precision can hold, and has fewer digits than what is left
    out = rows - mean.to(x.dtype)
    shift = bias.view(groups, -1) + (mean.to(x.dtype) - mean) * scale  # what rounding has left of the mean
    return torch.addcmul(shift.to(x.dtype), out, scale.to(x.dtype), out=out).flatten(-2).movedim(-1, 1)


LARGE = 2**23
"""Elements from which on a GPU's time counts, not that of its many small calls."""


def keeps_channels_last(x: Tensor) -> bool:
    """Whether `normalise_last` is the faster one: torch's kernel for a GPU takes and gives channels-first memory alone,
    and turning large feature maps over and back was a fifth of a step. A mean in bfloat16 has too few digits for it.
    """
    large = x.device.type == "cuda" and x.numel() >= LARGE
    return large and x.dtype == torch.float16 and not torch.is_grad_enabled()


class GroupNorm(nn.GroupNorm):
    """torch's, without its detour on a GPU."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (n, c, *) -> the same shape."""
        if keeps_channels_last(x):
            return normalise_last(x, self.num_groups, self.weight, self.bias, self.eps)
        return super().forward(x)


class Operations:
    """The layers that a UNet is made of where no host brings its own, which bring weights to the device and cast them."""

    Linear, Conv2d, Embedding, LayerNorm, GroupNorm = nn.Linear, nn.Conv2d, nn.Embedding, nn.LayerNorm, GroupNorm


class TemporalConvolution(nn.Module):
    """Four times normalise, SiLU, convolve over three frames; added to the input. Source: ModelScope.

    The (3, 1, 1) convolution is a 2-D one over ``b c t (h w)``: the same numbers three times as fast on a CPU, no
    3-D kernel needed (Apple's GPUs have none), and none of cuDNN's 3-D memory.
    """

    def __init__(self, channels: int, groups: int, operations: Any, **factory: Any) -> None:
        super().__init__()
        for i in range(1, 5):
            layers = [operations.GroupNorm(groups, channels, **factory), nn.SiLU()]
            layers += [nn.Identity()] * (i > 1)  # the originals have a dropout here, which counts in the names
            layers += [operations.Conv2d(channels, channels, (3, 1), padding=(1, 0), **factory)]
            self.add_module(f"conv{i}", nn.Sequential(*layers))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """x: (b t) c h w -> the same shape."""
        h = frames_first(x, frames)
        for i in range(1, 5):
            norm, *_, convolution = getattr(self, f"conv{i}")
            h = convolution(activate(norm(h)))
        return frames_folded(h, x.shape[2]).add_(x)


class ResBlock(nn.Module):
    """Two convolutions with the timestep embedding between them, a skip, and the temporal convolution."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embed_dim: int,
        groups: int,
        eps: float,
        temporal: bool,
        operations: Any,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            operations.GroupNorm(groups, in_channels, eps=eps, **factory),
            nn.SiLU(),
            operations.Conv2d(in_channels, out_channels, 3, padding=1, **factory),
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), operations.Linear(embed_dim, out_channels, **factory))
        self.out_layers = nn.Sequential(
            operations.GroupNorm(groups, out_channels, eps=eps, **factory),
            nn.SiLU(),
            nn.Identity(),  # the originals have a dropout here, which counts in the names
            operations.Conv2d(out_channels, out_channels, 3, padding=1, **factory),
        )
        self.skip_connection = nn.Identity()
        if in_channels != out_channels:
            self.skip_connection = operations.Conv2d(in_channels, out_channels, 1, **factory)
        self.temporal_conv = None
        if temporal:
            self.temporal_conv = TemporalConvolution(out_channels, groups, operations, **factory)

    def forward(self, x: Tensor, emb: Tensor, frames: int) -> Tensor:
        """x: (b t) c h w, emb: (b, e) or ((b t), e) -> (b t) c h w."""
        h = self.in_layers[2](activate(self.in_layers[0](x)))
        shift = self.emb_layers(emb)[:, None, :, None, None]
        h.unflatten(0, (shift.shape[0], -1)).add_(shift)
        h = self.out_layers[3](activate(self.out_layers[0](h))).add_(self.skip_connection(x))
        return h if self.temporal_conv is None else self.temporal_conv(h, frames)


class Downsample(nn.Module):
    """Half the height and width, by a convolution of stride 2."""

    def __init__(self, channels: int, operations: Any, **factory: Any) -> None:
        super().__init__()
        self.op = operations.Conv2d(channels, channels, 3, stride=2, padding=1, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b t) c h w -> (b t) c h/2 w/2, rounded up."""
        return self.op(x)


class Upsample(nn.Module):
    """Nearest neighbours to the given size, then a convolution."""

    def __init__(self, channels: int, operations: Any, **factory: Any) -> None:
        super().__init__()
        self.conv = operations.Conv2d(channels, channels, 3, padding=1, **factory)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """x: (b t) c h w -> (b t) c *size; the size is that of the skip it will meet, odd ones included."""
        return self.conv(F.interpolate(x, size=size, mode="nearest"))
