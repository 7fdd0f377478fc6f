"""Where the layers of a UNet come from: torch, or a host that brings weights to the device and casts them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .group_norm import GroupNorm

AttentionFunction = Callable[..., Tensor]
"""``attention(q, k, v, heads, options=…)``: q (b, n, h*d), k and v (b, m, h*d) -> (b, n, h*d)."""


class Operations:
    """The layer classes of a UNet without a host."""

    Linear, Conv2d, Embedding, LayerNorm, GroupNorm = nn.Linear, nn.Conv2d, nn.Embedding, nn.LayerNorm, GroupNorm


@dataclass(frozen=True)
class Factory:
    """Makes the layers of a UNet, all from the same classes, in one dtype and on one device."""

    operations: Any
    """Has the layer classes of `Operations`."""
    attention: AttentionFunction
    dtype: torch.dtype | None = None
    device: torch.device | str | None = None

    def _make(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.operations, name)(*args, **kwargs, dtype=self.dtype, device=self.device)

    def linear(self, inner: int, outer: int, bias: bool = True) -> nn.Linear:
        layer: nn.Linear = self._make("Linear", inner, outer, bias=bias)
        return layer

    def convolution(
        self, inner: int, outer: int, size: int | tuple[int, int], stride: int = 1, padding: int | tuple[int, int] = 0
    ) -> nn.Conv2d:
        layer: nn.Conv2d = self._make("Conv2d", inner, outer, size, stride=stride, padding=padding)
        return layer

    def embedding(self, count: int, dim: int) -> nn.Embedding:
        layer: nn.Embedding = self._make("Embedding", count, dim)
        return layer

    def layer_norm(self, dim: int) -> nn.LayerNorm:
        layer: nn.LayerNorm = self._make("LayerNorm", dim)
        return layer

    def group_norm(self, groups: int, channels: int, eps: float = 1e-5) -> nn.GroupNorm:
        layer: nn.GroupNorm = self._make("GroupNorm", groups, channels, eps=eps)
        return layer

    def mlp(self, inner: int, outer: int) -> nn.Sequential:
        """Two linear layers with a SiLU between them."""
        return nn.Sequential(self.linear(inner, outer), nn.SiLU(), self.linear(outer, outer))
