"""The convolutional layers of the UNet, and the memory layout of all its feature maps.

Feature maps are ``(b t) c h w`` in channels-last memory, that is ``b t h w c`` without gaps: a spatial convolution, the
tokens of a transformer, a normalisation over whole clips and a convolution over frames are then four views of one
buffer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .factory import Factory


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
    """SiLU, in place unless gradients are recorded: x must be the fresh result of a normalisation."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


class TemporalConvolution(nn.Module):
    """Four rounds of normalisation, SiLU and a convolution over three frames, added to the input. Source: ModelScope.

    The (3, 1, 1) convolution is a 2-D one over ``b c t (h w)``, which gives equal numbers three times as fast on a CPU,
    needs no 3-D kernel (Apple's GPUs have none) and none of the memory that cuDNN's takes.
    """

    def __init__(self, channels: int, groups: int, make: Factory) -> None:
        super().__init__()
        for i in range(1, 5):
            layers: list[nn.Module] = [make.group_norm(groups, channels), nn.SiLU()]
            layers += [nn.Identity()] * (i > 1)  # the originals have a dropout here, which counts in the names
            layers += [make.convolution(channels, channels, (3, 1), padding=(1, 0))]
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
        make: Factory,
    ) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            make.group_norm(groups, in_channels, eps),
            nn.SiLU(),
            make.convolution(in_channels, out_channels, 3, padding=1),
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), make.linear(embed_dim, out_channels))
        self.out_layers = nn.Sequential(
            make.group_norm(groups, out_channels, eps),
            nn.SiLU(),
            nn.Identity(),  # the originals have a dropout here, which counts in the names
            make.convolution(out_channels, out_channels, 3, padding=1),
        )
        self.skip_connection: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.skip_connection = make.convolution(in_channels, out_channels, 1)
        self.temporal_conv = TemporalConvolution(out_channels, groups, make) if temporal else None

    def forward(self, x: Tensor, emb: Tensor, frames: int) -> Tensor:
        """x: (b t) c h w, emb: (b, e) or ((b t), e) -> (b t) c h w."""
        h = self.in_layers[2](activate(self.in_layers[0](x)))
        shift = self.emb_layers(emb)[:, None, :, None, None]
        h.unflatten(0, (shift.shape[0], -1)).add_(shift)
        h = self.out_layers[3](activate(self.out_layers[0](h))).add_(self.skip_connection(x))
        out: Tensor = h if self.temporal_conv is None else self.temporal_conv(h, frames)
        return out


class Downsample(nn.Module):
    """Half the height and width, by a convolution of stride 2."""

    def __init__(self, channels: int, make: Factory) -> None:
        super().__init__()
        self.op = make.convolution(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b t) c h w -> (b t) c h/2 w/2, rounded up."""
        out: Tensor = self.op(x)
        return out


class Upsample(nn.Module):
    """Nearest-neighbour interpolation to a given size, then a convolution."""

    def __init__(self, channels: int, make: Factory) -> None:
        super().__init__()
        self.conv = make.convolution(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """x: (b t) c h w -> (b t) c *size; the size is that of the skip it is joined with, which may be odd."""
        out: Tensor = self.conv(F.interpolate(x, size=size, mode="nearest"))
        return out
