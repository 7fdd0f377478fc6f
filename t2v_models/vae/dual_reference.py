"""ToonCrafter's decoder, which sees the whole clip and the two pictures at its ends.

Source: Xing et al. 2024, ToonCrafter (arXiv:2405.17933), section 4.2; its layers over time are those of Stable Video
Diffusion (arXiv:2311.15127).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..unet.attention import scaled_dot_product
from ..unet.factory import AttentionFunction, Factory, Operations
from ..unet.layers import activate, frames_first, frames_folded

HEADS, HEAD_DIM = 8, 64
"""Heads of the attention to the pictures; shapes do not tell their number, and there is one published model."""

SPATIAL_ELEMENTS = 2**26
"""Elements that a layer of single frames makes at a time: a clip at full size in all 256 channels would set the peak of
memory."""


@dataclass(frozen=True)
class DecoderConfig:
    """The shape of a decoder. The defaults are ToonCrafter's (65,778,223 parameters)."""

    channels: tuple[int, ...] = (128, 256, 512, 512)
    """Width of each resolution level, the largest size first; each has half the height and width of the one before."""
    attending: tuple[bool, ...] = (False, False, True, True)
    """Which levels attend to the pictures; the others add them to the first and the last frame."""
    num_res_blocks: int = 3
    """Residual blocks of each level."""
    latent_channels: int = 4
    out_channels: int = 3
    norm_groups: int = 32


class DualReferenceDecoder(nn.Module):
    """Latents of one clip -> its frames. Module names are those of latent diffusion's decoder.

    Args:
        config: the shape of the network.
        operations: has the layer classes, `t2v_models.unet.factory.Operations` or a host's. Every weight is in one of
            these layers.
        attention: of the attention to the pictures; torch's own where None.
        dtype, device: of the new weights.
    """

    def __init__(
        self,
        config: DecoderConfig,
        operations: Any = Operations,
        attention: AttentionFunction | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        make = Factory(operations, attention or scaled_dot_product, dtype, device)
        groups, last = config.norm_groups, config.channels[-1]
        self.conv_in = make.convolution(config.latent_channels, last, 3, padding=1)
        self.mid = nn.ModuleDict(
            {
                "block_1": VideoBlock(last, last, groups, make),
                "attn_1": PixelAttention(last, groups, make),
                "block_2": VideoBlock(last, last, groups, make),
            }
        )
        self.up = nn.ModuleList(Level(config, level, make) for level in range(len(config.channels)))
        refinements: list[nn.Module] = [
            PictureAttention(width, groups, make) if attends else PictureSum(width, make)
            for width, attends in zip(config.channels, config.attending, strict=True)
        ]
        self.attn_refinement = nn.ModuleList([*refinements, PictureSum(config.channels[0], make)])
        self.norm_out = make.group_norm(groups, config.channels[0], 1e-6)
        self.conv_out = make.convolution(config.channels[0], config.out_channels, 3, padding=1)
        self.time_mix_conv = make.convolution(config.out_channels, config.out_channels, (3, 1), padding=(1, 0))

    def forward(self, z: Tensor, references: Sequence[Tensor] | None = None) -> Tensor:
        """Decode the frames of one clip.

        Args:
            z: (t, c, h, w) latents.
            references: feature maps of the pictures at the clip's ends, see `encoder_features`; None decodes without.

        Returns:
            (t, 3, 8h, 8w), about -1..1.
        """
        x = self.conv_in(z)
        for layer in self.mid.values():
            x = layer(x)
        for i in reversed(range(len(self.up))):
            level = cast(Level, self.up[i])
            for block in level.block:
                x = block(x)
            if references is not None:
                x = self.attn_refinement[i](x, references[i])
            if level.upsample is not None:
                x = level.upsample(x)
        x = in_parts(lambda part: activate(self.norm_out(part)), x, x.shape[1])
        if references is not None:
            x = self.attn_refinement[-1](x, references[-1])
        x = in_parts(self.conv_out, x, x.shape[1])
        return frames_folded(self.time_mix_conv(frames_first(x, len(x))), x.shape[2])


class Level(nn.Module):
    """The residual blocks of one resolution, and the way to the next larger one."""

    def __init__(self, config: DecoderConfig, index: int, make: Factory) -> None:
        super().__init__()
        width = config.channels[index]
        before = config.channels[min(index + 1, len(config.channels) - 1)]
        widths = [before] + [width] * (config.num_res_blocks - 1)
        self.block = nn.ModuleList(VideoBlock(each, width, config.norm_groups, make) for each in widths)
        self.upsample = Upsample(width, make) if index else None


class VideoBlock(nn.Module):
    """Two convolutions of single frames with a skip, then two over three frames, whose share was learned."""

    def __init__(self, in_channels: int, out_channels: int, groups: int, make: Factory) -> None:
        super().__init__()
        self.norm1 = make.group_norm(groups, in_channels, 1e-6)
        self.conv1 = make.convolution(in_channels, out_channels, 3, padding=1)
        self.norm2 = make.group_norm(groups, out_channels, 1e-6)
        self.conv2 = make.convolution(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.nin_shortcut = make.convolution(in_channels, out_channels, 1)
        self.time_stack = TimeStack(out_channels, groups, make)
        self.mix_factor = make.embedding(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (t, c, h, w) of one clip -> (t, c', h, w)."""
        x = in_parts(self._single_frames, x, self.norm2.num_channels)
        index = torch.zeros(1, dtype=torch.long, device=x.device)
        share = self.mix_factor(index).sigmoid().to(x.dtype)
        return torch.addcmul(x, self.time_stack(x), share[..., None, None])

    def _single_frames(self, x: Tensor) -> Tensor:
        h = self.conv1(activate(self.norm1(x)))
        h = self.conv2(activate(self.norm2(h)))
        out: Tensor = h + self.nin_shortcut(x)
        return out


class TimeStack(nn.Module):
    """Two rounds of normalisation over the whole clip, SiLU and a convolution over three frames."""

    def __init__(self, channels: int, groups: int, make: Factory) -> None:
        super().__init__()
        layers = [
            nn.Sequential(
                make.group_norm(groups, channels),
                nn.SiLU(),
                *[nn.Identity()] * dropout,  # the original has a dropout here, which counts in the names
                make.convolution(channels, channels, (3, 1), padding=(1, 0)),
            )
            for dropout in (0, 1)
        ]
        self.in_layers, self.out_layers = layers

    def forward(self, x: Tensor) -> Tensor:
        """x: (t, c, h, w) of one clip -> what is added to it, of the same shape."""
        h = frames_first(x, len(x))
        for layers in (self.in_layers, self.out_layers):
            h = layers[-1](activate(layers[0](h)))
        return frames_folded(h, x.shape[2])


class PixelAttention(nn.Module):
    """Every pixel attends to the pixels of its own frame, with one head."""

    def __init__(self, channels: int, groups: int, make: Factory) -> None:
        super().__init__()
        self.norm = make.group_norm(groups, channels, 1e-6)
        self.q, self.k, self.v, self.proj_out = (make.convolution(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """x: (t, c, h, w) -> the same shape."""
        return torch.cat([self._frame(frame) for frame in x.split(1)])

    def _frame(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (_tokens(layer(h)) for layer in (self.q, self.k, self.v))
        # not a host's attention, whose kernels may not take a head of 512 channels
        h = scaled_dot_product(q, k, v, 1).transpose(1, 2).unflatten(2, x.shape[2:])
        out: Tensor = x + self.proj_out(h)
        return out


class PictureAttention(nn.Module):
    """Every pixel of every frame attends to the pixels of both pictures."""

    def __init__(self, channels: int, groups: int, make: Factory) -> None:
        super().__init__()
        self.attention, inner = make.attention, HEADS * HEAD_DIM
        self.norm = make.group_norm(groups, channels, 1e-6)
        self.to_q, self.to_k, self.to_v = (make.linear(channels, inner, bias=False) for _ in range(3))
        self.to_out = nn.Sequential(make.linear(inner, channels))

    def forward(self, x: Tensor, pictures: Tensor) -> Tensor:
        """x: (t, c, h, w) of one clip, pictures: (2, c, h, w) -> the shape of x."""
        tokens = _tokens(pictures).flatten(0, 1)[None]  # (1, 2 h w, c)
        k, v = self.to_k(tokens), self.to_v(tokens)
        return torch.cat([self._frame(frame, k, v) for frame in x.split(1)])

    def _frame(self, x: Tensor, k: Tensor, v: Tensor) -> Tensor:
        h = self.attention(self.to_q(_tokens(self.norm(x))), k, v, HEADS)
        out: Tensor = x + self.to_out(h).transpose(1, 2).unflatten(2, x.shape[2:])
        return out


class PictureSum(nn.Module):
    """What is made of the first picture is added to the first frame, of the second to the last."""

    def __init__(self, channels: int, make: Factory) -> None:
        super().__init__()
        self.conv = make.convolution(channels, channels, 1)

    def forward(self, x: Tensor, pictures: Tensor) -> Tensor:
        """x: (t, c, h, w) of one clip, pictures: (2, c, h, w) -> the shape of x."""
        first, last = self.conv(pictures)
        x = x.clone()
        x[0] += first
        x[-1] += last
        return x


class Upsample(nn.Module):
    """Twice the height and width, and a convolution."""

    def __init__(self, channels: int, make: Factory) -> None:
        super().__init__()
        self.conv = make.convolution(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (t, c, h, w) -> (t, c, 2h, 2w)."""
        return in_parts(lambda part: self.conv(F.interpolate(part, scale_factor=2.0)), x, 4 * x.shape[1])


def in_parts(work: Callable[[Tensor], Tensor], x: Tensor, channels: int) -> Tensor:
    """work(x) for x, (t, c, h, w), whose frames do not depend on each other, a few at a time; channels: of what it makes."""
    frames = max(1, SPATIAL_ELEMENTS // (channels * x.shape[2] * x.shape[3]))
    if frames >= len(x):
        return work(x)
    out: Tensor | None = None
    for start in range(0, len(x), frames):
        part = work(x[start : start + frames])
        if out is None:  # one memory for all parts, which joined at the end would be there twice
            out = part.new_empty((len(x), *part.shape[1:]))
        out[start : start + frames] = part
    return cast(Tensor, out)


def _tokens(x: Tensor) -> Tensor:
    """(n, c, h, w) -> (n, h w, c)."""
    return x.flatten(2).transpose(1, 2)
