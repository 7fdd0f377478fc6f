"""Attention: torch's function, which a host may replace, and the layer around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from .factory import Factory

MAX_BATCH = 2**15
"""CUDA attention kernels launch one block per batch row and head, and fail beyond 65,535 of them."""


def scaled_dot_product(q: Tensor, k: Tensor, v: Tensor, heads: int, options: dict[str, Any] | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v. q: (b, n, h*d), k and v: (b, m, h*d) -> (b, n, h*d)."""
    if q.shape[0] > MAX_BATCH and q.device.type != "cpu":
        parts = zip(q.split(MAX_BATCH), k.split(MAX_BATCH), v.split(MAX_BATCH), strict=True)
        return torch.cat([scaled_dot_product(*part, heads) for part in parts])
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # (b, h, n, d)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def relative_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, key_table: Tensor, value_table: Tensor) -> Tensor:
    """Attention whose keys and values have a learned offset for every distance between frames.

    q, k, v: (b, t, h*d); the tables: (2 R + 1, d), distances beyond R share the outermost entry.
    Source: Shaw et al. 2018 (arXiv:1803.02155), as VideoCrafter1 uses it.
    """
    q, k, v = (rearrange(x, "b t (h d) -> b h t d", h=heads) for x in (q, k, v))
    reach = key_table.shape[0] // 2
    frame = torch.arange(q.shape[2], device=q.device)
    distance = (frame[None, :] - frame[:, None]).clamp(-reach, reach) + reach  # (t, s)
    key_offset, value_offset = key_table[distance], value_table[distance]  # (t, s, d)
    scores = q @ k.transpose(-1, -2) + torch.einsum("b h t d, t s d -> b h t s", q, key_offset)
    weights = (scores * q.shape[-1] ** -0.5).softmax(dim=-1)
    out: Tensor = weights @ v + torch.einsum("b h t s, t s d -> b h t d", weights, value_offset)
    return out.transpose(1, 2).flatten(2)  # (b, t, h*d)


Window = tuple[Tensor, Tensor]
"""Indices of frames that attend to each other, (n,), and the share of each one's result in the sum, (n,)."""


def over_windows(attend: Callable[[Tensor, Tensor, Tensor], Tensor], windows: Sequence[Window], *qkv: Tensor) -> Tensor:
    """Attention within overlapping windows of frames, summed with their shares. q, k, v: (b, t, h*d) -> (b, t, h*d).

    Source: Qiu et al. 2024, FreeNoise (arXiv:2310.15169), window based attention fusion.
    """
    total = torch.zeros_like(qkv[0])
    for frames, share in windows:
        part = attend(*(x[:, frames] for x in qkv))
        total.index_add_(1, frames, part * share[:, None].to(part))
    return total


@dataclass(frozen=True)
class Heads:
    """The heads of an attention layer."""

    count: int
    dim: int
    relative_position: int = 0
    """Largest distance between frames with an embedding of its own; 0: no positions."""
    image_attention: bool = False
    """Attention to a context has extra keys and values for image tokens."""
    image_scale: bool = False
    """The attention to the image tokens has a learned scale."""


class Attention(nn.Module):
    """Multi-head attention, to itself (context_dim None) or to a context."""

    def __init__(self, query_dim: int, context_dim: int | None, heads: Heads, make: Factory) -> None:
        super().__init__()
        self.heads, self.head_dim, self.attention = heads.count, heads.dim, make.attention
        inner, image = heads.count * heads.dim, heads.image_attention and context_dim is not None
        context_dim = context_dim or query_dim
        self.to_q = make.linear(query_dim, inner, bias=False)
        self.to_k = make.linear(context_dim, inner, bias=False)
        self.to_v = make.linear(context_dim, inner, bias=False)
        self.to_out = nn.Sequential(make.linear(inner, query_dim))
        self.relative_position_k: nn.Embedding | None = None
        self.relative_position_v: nn.Embedding | None = None
        if heads.relative_position:
            self.relative_position_k = make.embedding(2 * heads.relative_position + 1, heads.dim)
            self.relative_position_v = make.embedding(2 * heads.relative_position + 1, heads.dim)
        self.to_k_ip = make.linear(context_dim, inner, bias=False) if image else None
        self.to_v_ip = make.linear(context_dim, inner, bias=False) if image else None
        self.image_scale = make.embedding(1, 1) if image and heads.image_scale else None

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        value: Tensor | None = None,
        image_context: Tensor | None = None,
        options: dict[str, Any] | None = None,
        windows: Sequence[Window] | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """x: (b, n, c), context and value: (b, m, d), image_context: (b, i, d) -> (b, n, c).

        value: where the values do not come from the context.
        windows: of frames within which to attend: see `over_windows`.
        rows: (b,), the index of each x's context, where several share one and the context is (u, m, d).
        """
        context = x if context is None else context
        value = context if value is None else value
        q, k, v = self.to_q(x), self.to_k(context), self.to_v(value)
        if rows is not None:
            k, v = k[rows], v[rows]
        attend: Callable[[Tensor, Tensor, Tensor], Tensor]
        if self.relative_position_k is not None and self.relative_position_v is not None:
            index = torch.arange(self.relative_position_k.num_embeddings, device=q.device)
            tables = (self.relative_position_k(index).to(q.dtype), self.relative_position_v(index).to(q.dtype))
            attend = partial(relative_attention, heads=self.heads, key_table=tables[0], value_table=tables[1])
        else:
            attend = partial(self.attention, heads=self.heads, options=options)
        out = attend(q, k, v) if windows is None else over_windows(attend, windows, q, k, v)
        return self.project(out, q, image_context, options)

    def project(self, out: Tensor, q: Tensor, image_context: Tensor | None, options: dict[str, Any] | None) -> Tensor:
        """The last layer after attention to the image tokens, if any, is added. out, q: (b, n, h*d) -> (b, n, c)."""
        result: Tensor = self.to_out(self._add_image(out, q, image_context, options))
        return result

    def _add_image(
        self, out: Tensor, q: Tensor, image_context: Tensor | None, options: dict[str, Any] | None
    ) -> Tensor:
        strength = (options or {}).get("image_strength", 1)
        if image_context is None or self.to_k_ip is None or self.to_v_ip is None or not strength:
            return out
        k, v = self.to_k_ip(image_context), self.to_v_ip(image_context)
        image = self.attention(q, k, v, self.heads, options=options)
        if self.image_scale is not None:
            alpha = self.image_scale(torch.zeros(1, dtype=torch.long, device=q.device)).to(q.dtype)
            image = image * (alpha.tanh() + 1)
        return out + image * strength if strength != 1 else out + image
