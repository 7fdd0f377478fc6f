"""Transformers over the pixels of a frame and over the frames of a pixel."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import Attention, AttentionFunction
from .config import UNetConfig
from .layers import frames_first
from .patches import Options

FEED_FORWARD_ROWS = 4096
"""Tokens that a CPU sends through a feed-forward at once, which keeps its eightfold width out of the peak memory."""


class GEGLU(nn.Module):
    """x W1 * gelu(x W2). Source: Shazeer 2020 (arXiv:2002.05202)."""

    def __init__(self, dim: int, inner: int, operations: Any, **factory: Any) -> None:
        super().__init__()
        self.proj = operations.Linear(dim, 2 * inner, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """x: (…, dim) -> (…, inner)."""
        value, gate = self._halves(x)
        gate = F.gelu(gate)
        return value * gate if torch.is_grad_enabled() else gate.mul_(value)

    def _halves(self, x: Tensor) -> Sequence[Tensor]:
        """x W1 and x W2; each in memory of its own, which a GPU works on faster, where the layer is torch's."""
        if type(self.proj) is not nn.Linear or torch.is_grad_enabled():
            return self.proj(x).chunk(2, dim=-1)
        halves = zip(self.proj.weight.chunk(2), self.proj.bias.chunk(2), strict=True)
        return [F.linear(x, weight, bias) for weight, bias in halves]


class FeedForward(nn.Module):
    """A GEGLU of four times the width and back."""

    def __init__(self, dim: int, operations: Any, **factory: Any) -> None:
        super().__init__()
        back = operations.Linear(4 * dim, dim, **factory)
        self.net = nn.Sequential(GEGLU(dim, 4 * dim, operations, **factory), nn.Identity(), back)

    def forward(self, x: Tensor) -> Tensor:
        """x: (…, dim) -> (…, dim)."""
        return self.net(x)


class TransformerBlock(nn.Module):
    """Attention to itself, attention to the text (or, over time, to itself again), feed-forward."""

    def __init__(
        self,
        dim: int,
        context_dim: int | None,
        heads: int,
        head_dim: int,
        operations: Any,
        attention: AttentionFunction,
        *,
        relative_position: int = 0,
        image_attention: bool = False,
        image_scale: bool = False,
        **factory: Any,
    ) -> None:
        super().__init__()
        common = (heads, head_dim, operations, attention)
        image = {"image_attention": image_attention, "image_scale": image_scale}
        self.attn1 = Attention(dim, None, *common, relative_position=relative_position, **factory)
        self.ff = FeedForward(dim, operations, **factory)
        self.attn2 = Attention(dim, context_dim, *common, relative_position=relative_position, **image, **factory)
        self.norm1 = operations.LayerNorm(dim, **factory)
        self.norm2 = operations.LayerNorm(dim, **factory)
        self.norm3 = operations.LayerNorm(dim, **factory)

    def feed_forward(self, x: Tensor) -> Tensor:
        """x: (b, n, c) -> x + ff(norm(x)); on a CPU, where no gradient is wanted, in place and piece by piece."""
        if torch.is_grad_enabled() or x.device.type != "cpu":
            return self.ff(self.norm3(x)).add_(x)
        for rows in x.view(-1, x.shape[-1]).split(FEED_FORWARD_ROWS):
            rows.add_(self.ff(self.norm3(rows)))
        return x


class SpatialTransformer(nn.Module):
    """Every pixel looks at the pixels of its own frame, then at the text."""

    def __init__(
        self, config: UNetConfig, channels: int, operations: Any, attention: AttentionFunction, **factory: Any
    ) -> None:
        super().__init__()
        heads, inner = channels // config.head_dim, channels
        self.norm = operations.GroupNorm(config.norm_groups, channels, eps=1e-6, **factory)
        self.proj_in = operations.Linear(channels, inner, **factory)
        block = TransformerBlock(
            inner,
            config.context_dim,
            heads,
            config.head_dim,
            operations,
            attention,
            image_attention=config.image_attention,
            image_scale=config.image_scale,
            **factory,
        )
        self.transformer_blocks = nn.ModuleList([block])
        self.proj_out = operations.Linear(inner, channels, **factory)

    def forward(self, x: Tensor, text: TextContext, frames: int, options: Options) -> Tensor:
        """x: (b t) c h w -> the same shape, or a multiple of b where the text has one: see `TextContext`."""
        residual = x
        n, c, h, w = x.shape
        x = self.proj_in(self.norm(x).permute(0, 2, 3, 1).reshape(n, h * w, c))
        block = self.transformer_blocks[0]
        if options.patched:
            options.values["activations_shape"] = [n, c, h, w]
            x = options.transformer_block(block, x, text.per_frame(frames), text.image_per_frame(frames))
            options.values["transformer_index"] += 1
        else:
            x = block.attn1(block.norm1(x), options=options.values).add_(x)
            x = text.spread(x, frames)
            residual = text.spread(residual, frames)
            y = text.attend(block.attn2, block.norm2(x), frames, options.values)
            x = block.feed_forward(y.add_(x))
        x = self.proj_out(x).view(-1, h, w, c).permute(0, 3, 1, 2)
        return x.add_(residual)


class TemporalTransformer(nn.Module):
    """Every pixel looks at itself in the other frames, twice; no text, and (but for VideoCrafter1) no positions."""

    def __init__(
        self,
        config: UNetConfig,
        channels: int,
        operations: Any,
        attention: AttentionFunction,
        heads: int | None = None,
        **factory: Any,
    ) -> None:
        super().__init__()
        heads = heads or channels // config.head_dim
        inner = heads * config.head_dim
        self.norm = operations.GroupNorm(config.norm_groups, channels, eps=1e-6, **factory)
        self.proj_in = operations.Linear(channels, inner, **factory)
        relative = {"relative_position": config.relative_position}
        block = TransformerBlock(inner, None, heads, config.head_dim, operations, attention, **relative, **factory)
        self.transformer_blocks = nn.ModuleList([block])
        self.proj_out = operations.Linear(inner, channels, **factory)

    def forward(self, x: Tensor, frames: int, options: Options) -> Tensor:
        """x: (b t) c h w -> the same shape."""
        b = x.shape[0] // frames
        y = rearrange(self.norm(frames_first(x, frames)), "b c t p -> (b p) t c").contiguous()
        y = self.proj_in(y)
        block = self.transformer_blocks[0]
        attend = options.temporal_attention
        y = attend(block.attn1, block.norm1(y)).add_(y)
        y = attend(block.attn2, block.norm2(y)).add_(y)
        y = self.proj_out(block.feed_forward(y))
        return x + rearrange(y, "(b h w) t c -> (b t) c h w", b=b, h=x.shape[2])


class TextContext:
    """The text (and image tokens) that the frames of a batch look at, stored once however many frames share it.

    text: (k*b, n, d), one for a whole video, or (k*b, t, n, d), one per frame; image alike. k > 1 means that k texts
    (a prompt and its negative) go with each latent: the first text attention is where the k parts begin to differ, so
    all before it is computed once and repeated there.
    """

    def __init__(self, text: Tensor, image: Tensor | None, copies: int) -> None:
        self.text, self.image, self.copies = text, image, copies

    def spread(self, x: Tensor, frames: int) -> Tensor:
        """x: ((b t), …) -> ((k b t), …), where that has not been done yet."""
        if x.shape[0] == self.text.shape[0] * frames:
            return x
        return torch.cat([x] * self.copies)  # unlike repeat, it keeps channels-last memory

    def per_frame(self, frames: int) -> Tensor:
        """((b t), n, d): every frame's text."""
        return _per_frame(self.text, frames)

    def image_per_frame(self, frames: int) -> Tensor | None:
        """((b t), i, d): every frame's image tokens."""
        return None if self.image is None else _per_frame(self.image, frames)

    def attend(self, attention: Attention, x: Tensor, frames: int, options: dict[str, Any] | None) -> Tensor:
        """x: ((b t), p, c) -> attention to the text, its keys and values computed once per text, not per frame.

        Only on a CPU where texts change over the frames: another device would have to be waited for to tell which do.
        """
        if self.text.ndim == 3 and (self.image is None or self.image.ndim == 3):
            videos = x.reshape(x.shape[0] // frames, -1, x.shape[-1])
            return attention(videos, self.text, image_context=self.image, options=options).view(x.shape)
        image = self.image_per_frame(frames)
        if self.text.ndim == 3 or self.text.device.type != "cpu":
            return attention(x, self.per_frame(frames), image_context=image, options=options)
        texts, rows = self.distinct
        return attention(x, texts, image_context=image, options=options, rows=rows)

    @cached_property
    def distinct(self) -> tuple[Tensor, Tensor]:
        """Of one text per frame those that differ from the one before, (u, n, d), and each frame's, ((k b t),)."""
        texts = self.text.flatten(0, 1)
        new = F.pad((texts[1:] != texts[:-1]).flatten(1).any(dim=1), (1, 0), value=True)
        return texts[new], new.cumsum(0) - 1


def _per_frame(tokens: Tensor, frames: int) -> Tensor:
    return tokens.flatten(0, 1) if tokens.ndim == 4 else tokens.repeat_interleave(frames, dim=0)
