"""Transformers over the pixels of a frame and over the frames of a pixel."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import Attention, Heads
from .config import UNetConfig
from .factory import Factory
from .layers import frames_first
from .patches import Patches

FEED_FORWARD_ROWS = 4096
"""Tokens that a feed-forward takes at once on a CPU: its width of eight times the input would set the peak of memory."""


class GEGLU(nn.Module):
    """x W1 * gelu(x W2). Source: Shazeer 2020 (arXiv:2002.05202)."""

    def __init__(self, dim: int, inner: int, make: Factory) -> None:
        super().__init__()
        self.proj = make.linear(dim, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        """x: (…, dim) -> (…, inner)."""
        value, gate = self._halves(x)
        gate = F.gelu(gate)
        return value * gate if torch.is_grad_enabled() else gate.mul_(value)

    def _halves(self, x: Tensor) -> Sequence[Tensor]:
        """x W1 and x W2; where the layer is torch's, each in memory of its own, which is faster on a GPU."""
        if type(self.proj) is not nn.Linear or torch.is_grad_enabled():
            both: Tensor = self.proj(x)
            return both.chunk(2, dim=-1)
        halves = zip(self.proj.weight.chunk(2), self.proj.bias.chunk(2), strict=True)
        return [F.linear(x, weight, bias) for weight, bias in halves]


class FeedForward(nn.Module):
    """A GEGLU of four times the width, and a linear layer back."""

    def __init__(self, dim: int, make: Factory) -> None:
        super().__init__()
        back = make.linear(4 * dim, dim)  # made first, which sets the random weights of a seed
        self.net = nn.Sequential(GEGLU(dim, 4 * dim, make), nn.Identity(), back)

    def forward(self, x: Tensor) -> Tensor:
        """x: (…, dim) -> (…, dim)."""
        out: Tensor = self.net(x)
        return out


class TransformerBlock(nn.Module):
    """Attention to itself, attention to the text (context_dim None: to itself again), feed-forward."""

    def __init__(self, dim: int, context_dim: int | None, heads: Heads, make: Factory) -> None:
        super().__init__()
        self.attn1 = Attention(dim, None, heads, make)
        self.ff = FeedForward(dim, make)
        self.attn2 = Attention(dim, context_dim, heads, make)
        self.norm1 = make.layer_norm(dim)
        self.norm2 = make.layer_norm(dim)
        self.norm3 = make.layer_norm(dim)

    def feed_forward(self, x: Tensor) -> Tensor:
        """x: (b, n, c) -> x + ff(norm(x)); on a CPU, unless gradients are recorded, in place and in pieces."""
        if torch.is_grad_enabled() or x.device.type != "cpu":
            out: Tensor = self.ff(self.norm3(x))
            return out.add_(x)
        for rows in x.view(-1, x.shape[-1]).split(FEED_FORWARD_ROWS):
            rows.add_(self.ff(self.norm3(rows)))
        return x


def patched_block(block: TransformerBlock, x: Tensor, text: Tensor, image: Tensor | None, patches: Patches) -> Tensor:
    """A spatial transformer block with every patch applied. x: (n, p, c), text: (n, m, d) -> (n, p, c)."""
    extra = dict(patches.plain(), n_heads=block.attn1.heads, dim_head=block.attn1.head_dim)
    extra.setdefault("block_index", 0)
    extra["attn_precision"] = None
    x = x + _patched_attention("attn1", block.attn1, block.norm1(x), None, None, patches, extra)
    for patch in patches.lists.get("middle_patch", ()):
        x = patch(x, extra)
    x = x + _patched_attention("attn2", block.attn2, block.norm2(x), text, image, patches, extra)
    forward: Tensor = block.ff(block.norm3(x))
    return x + forward


def _patched_attention(
    name: str,
    layer: Attention,
    x: Tensor,
    context: Tensor | None,
    image: Tensor | None,
    patches: Patches,
    extra: dict[str, Any],
) -> Tensor:
    """The attention "attn1" or "attn2" with its patches; extra is their last argument."""
    value = None
    for patch in patches.lists.get(f"{name}_patch", ()):
        context = x if context is None else context
        value = context if value is None else value
        x, context, value = patch(x, context, value, extra)
    replacement = patches.replacement(name)
    if replacement is None:
        x = layer(x, context, value, image, options=patches.values)
    else:
        context = x if context is None else context
        value = context if value is None else value
        q = layer.to_q(x)
        x = replacement(q, layer.to_k(context), layer.to_v(value), extra)
        x = layer.project(x, q, image, patches.values)
    for patch in patches.lists.get(f"{name}_output_patch", ()):
        x = patch(x, extra)
    return x


class Transformer(nn.Module):
    """The layers that spatial and temporal transformers share: normalisation, a linear layer, one block, and another."""

    def __init__(self, config: UNetConfig, channels: int, context_dim: int | None, heads: Heads, make: Factory) -> None:
        super().__init__()
        inner = heads.count * heads.dim
        self.norm = make.group_norm(config.norm_groups, channels, 1e-6)
        self.proj_in = make.linear(channels, inner)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(inner, context_dim, heads, make)])
        self.proj_out = make.linear(inner, channels)

    @property
    def block(self) -> TransformerBlock:
        """The only block; the originals have a list of them, which counts in the names."""
        return cast(TransformerBlock, self.transformer_blocks[0])


class SpatialTransformer(Transformer):
    """Every pixel attends to the pixels of its own frame, then to the text."""

    def __init__(self, config: UNetConfig, channels: int, make: Factory) -> None:
        heads = Heads(
            channels // config.head_dim,
            config.head_dim,
            image_attention=config.image_attention,
            image_scale=config.image_scale,
        )
        super().__init__(config, channels, config.context_dim, heads, make)

    def forward(self, x: Tensor, text: TextContext, frames: int, patches: Patches) -> Tensor:
        """x: (b t) c h w -> the same shape, or a multiple of b where the text has one: see `TextContext`."""
        residual, block = x, self.block
        n, c, h, w = x.shape
        x = self.proj_in(self.norm(x).permute(0, 2, 3, 1).reshape(n, h * w, c))
        if patches:
            patches.values["activations_shape"] = [n, c, h, w]
            x = patched_block(block, x, text.per_frame(frames), text.image_per_frame(frames), patches)
            patches.values["transformer_index"] += 1
        else:
            x = block.attn1(block.norm1(x), options=patches.values).add_(x)
            x = text.spread(x, frames)
            residual = text.spread(residual, frames)
            y = text.attend(block.attn2, block.norm2(x), frames, patches.values)
            x = block.feed_forward(y.add_(x))
        x = rearrange(self.proj_out(x), "n (h w) c -> n c h w", h=h)
        return x.add_(residual)


class TemporalTransformer(Transformer):
    """Every pixel attends to itself in the other frames, twice; only VideoCrafter1's takes positions of frames."""

    def __init__(self, config: UNetConfig, channels: int, make: Factory, heads: int | None = None) -> None:
        count = heads or channels // config.head_dim
        shape = Heads(count, config.head_dim, relative_position=config.relative_position)
        super().__init__(config, channels, None, shape, make)

    def forward(self, x: Tensor, frames: int, patches: Patches) -> Tensor:
        """x: (b t) c h w -> the same shape."""
        b, block = x.shape[0] // frames, self.block
        attend = {"options": patches.plain(), "windows": patches.windows}
        y: Tensor = rearrange(self.norm(frames_first(x, frames)), "b c t p -> (b p) t c").contiguous()
        y = self.proj_in(y)
        y = block.attn1(block.norm1(y), **attend).add_(y)
        y = block.attn2(block.norm2(y), **attend).add_(y)
        y = self.proj_out(block.feed_forward(y))
        y = rearrange(y, "(b h w) t c -> (b t) c h w", b=b, h=x.shape[2])
        return x + y


class TextContext:
    """The text and image tokens that the frames of a batch attend to, stored once for all frames that share them.

    text: (k*b, n, d), one for a whole video, or (k*b, t, n, d), one per frame; image likewise. k > 1 means that k texts
    (a prompt and its negative) go with each latent: the k parts begin to differ at the first attention to the text, so
    everything before it is computed once and repeated there.
    """

    def __init__(self, text: Tensor, image: Tensor | None, copies: int) -> None:
        self.text, self.image, self.copies = text, image, copies

    def spread(self, x: Tensor, frames: int) -> Tensor:
        """x: ((b t), …) -> ((k b t), …); an x that has already been spread stays as it is."""
        if x.shape[0] == self.text.shape[0] * frames:
            return x
        return torch.cat([x] * self.copies)  # unlike repeat, it keeps channels-last memory

    def per_frame(self, frames: int) -> Tensor:
        """The text of every frame, ((b t), n, d)."""
        return _per_frame(self.text, frames)

    def image_per_frame(self, frames: int) -> Tensor | None:
        """The image tokens of every frame, ((b t), i, d); None where there are none."""
        return None if self.image is None else _per_frame(self.image, frames)

    def attend(self, attention: Attention, x: Tensor, frames: int, options: dict[str, Any] | None) -> Tensor:
        """Attention to the text, with keys and values computed once for each text. x: ((b t), p, c) -> the same shape.

        Where texts change over the frames, another device than a CPU computes them for each frame: to find the equal
        ones the CPU would have to wait for it.
        """
        if self.text.ndim == 3 and (self.image is None or self.image.ndim == 3):
            videos = x.reshape(x.shape[0] // frames, -1, x.shape[-1])
            out: Tensor = attention(videos, self.text, image_context=self.image, options=options)
            return out.view(x.shape)
        texts, rows = self.per_frame(frames), None
        if self.text.ndim == 4 and self.text.device.type == "cpu":
            texts, rows = self.distinct
        out = attention(x, texts, image_context=self.image_per_frame(frames), options=options, rows=rows)
        return out

    @cached_property
    def distinct(self) -> tuple[Tensor, Tensor]:
        """The texts that differ from the frame's before, (u, n, d), and the index of each frame's text, ((k b t),)."""
        texts = self.text.flatten(0, 1)
        new = F.pad((texts[1:] != texts[:-1]).flatten(1).any(dim=1), (1, 0), value=True)
        return texts[new], new.cumsum(0) - 1


def _per_frame(tokens: Tensor, frames: int) -> Tensor:
    return tokens.flatten(0, 1) if tokens.ndim == 4 else tokens.repeat_interleave(frames, dim=0)
