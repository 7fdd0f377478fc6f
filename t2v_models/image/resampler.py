"""The network that turns an encoded picture into image tokens for the UNet: IP-Adapter's Resampler.

Source: IP-Adapter (arXiv:2308.06721), after Flamingo's Perceiver (arXiv:2204.14198); DynamiCrafter (arXiv:2310.12190) has
tokens of its own for every frame.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..errors import AGAIN, T2VError
from ..foreign import quoted
from ..unet.attention import scaled_dot_product
from ..unet.factory import AttentionFunction, Factory, Operations


@dataclass(frozen=True)
class ResamplerConfig:
    """The shape of a Resampler. The defaults are DynamiCrafter's."""

    queries: int = 256
    """Number of tokens that it makes: 16 (VideoCrafter1), or 16 for each of 16 frames (DynamiCrafter)."""
    input_dim: int = 1280
    """Width of the encoded picture's tokens."""
    dim: int = 1024
    """Width inside."""
    output_dim: int = 1024
    """Width of the tokens that it makes: the UNet's context_dim."""
    depth: int = 4
    heads: int = 12
    head_dim: int = 64
    """Channels of one head."""
    feed_forward: int = 4096
    """Width of the feed-forward layers."""

    @classmethod
    def of(cls, state_dict: Mapping[str, Any], head_dim: int = 64) -> ResamplerConfig:
        """Read the shape from the weights (tensors, or anything with a shape), under published names or ours.

        Args:
            state_dict: the weights.
            head_dim: which does not follow from shapes.

        Raises:
            T2VError: where the weights are not those of a Resampler.
        """
        try:
            shapes = {name: tuple(tensor.shape) for name, tensor in resampler_state(state_dict).items()}
            queries, dim = shapes["latents.weight"]
            inner = shapes["layers.0.0.to_q.weight"][0]
            config = cls(
                queries=queries,
                input_dim=shapes["proj_in.weight"][1],
                dim=dim,
                output_dim=shapes["proj_out.weight"][0],
                depth=1 + max(int(match[1]) for name in shapes if (match := re.match(r"layers\.(\d{1,2})\.", name))),
                heads=inner // head_dim,
                head_dim=head_dim,
                feed_forward=shapes["layers.0.1.1.weight"][0],
            )
            wanted = config.shapes()
        except (KeyError, ValueError, IndexError, RuntimeError) as error:
            raise T2VError(f"The network that makes image tokens is incomplete ({quoted(error)}). {AGAIN}") from error
        if inner % head_dim:
            raise T2VError(
                f"The network that makes image tokens is {inner} wide, no multiple of its heads' {head_dim}."
            )
        for name in sorted(wanted.keys() | shapes.keys()):
            if wanted.get(name) != shapes.get(name):
                found, right = shapes.get(name, "nothing"), wanted.get(name, "nothing")
                raise T2VError(
                    f"The network that makes image tokens has {quoted(found)} in {quoted(name)}, where {right} belongs. "
                    f"{AGAIN}"
                )
        return config

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The name and shape of every tensor of a `Resampler` of this configuration."""
        return {name: tuple(tensor.shape) for name, tensor in Resampler(self, device="meta").state_dict().items()}


class Resampler(nn.Module):
    """Learned queries that attend to the tokens of an encoded picture, a few times, and become image tokens."""

    def __init__(
        self,
        config: ResamplerConfig | None = None,
        operations: Any = Operations,
        attention: AttentionFunction | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        """Make the network, with random weights.

        Args:
            config: its shape.
            operations: the layer classes, see `t2v_models.unet.factory.Operations`.
            attention: the function, see `t2v_models.unet.factory.AttentionFunction`; None is torch's.
            dtype: of the weights.
            device: of the weights.
        """
        super().__init__()
        self.config = config = config or ResamplerConfig()
        make = Factory(operations, attention or scaled_dot_product, dtype, device)
        self.latents = make.embedding(config.queries, config.dim)  # a layer, since hosts move and cast layers' weights
        self.proj_in = make.linear(config.input_dim, config.dim)
        self.proj_out = make.linear(config.dim, config.output_dim)
        self.norm_out = make.layer_norm(config.output_dim)
        layers = [[PerceiverAttention(config, make), _feed_forward(config, make)] for _ in range(config.depth)]
        self.layers = nn.ModuleList([nn.ModuleList(layer) for layer in layers])

    def forward(self, tokens: Tensor) -> Tensor:
        """Turn the tokens of encoded pictures into image tokens. tokens: (b, n, input_dim) -> (b, queries, output_dim)."""
        x: Tensor = self.proj_in(tokens)
        queries = self.latents(torch.arange(self.config.queries, device=x.device)).to(x.dtype)
        latents = queries.expand(x.shape[0], -1, -1)
        for layer in self.layers:
            attention, feed_forward = cast(nn.ModuleList, layer)
            latents = latents + attention(x, latents)
            latents = latents + feed_forward(latents)
        result: Tensor = self.norm_out(self.proj_out(latents))
        return result


class PerceiverAttention(nn.Module):
    """Attention of the queries to a picture's tokens and to themselves."""

    def __init__(self, config: ResamplerConfig, make: Factory) -> None:
        super().__init__()
        inner = config.heads * config.head_dim
        self.heads, self.attention = config.heads, make.attention
        self.norm1 = make.layer_norm(config.dim)
        self.norm2 = make.layer_norm(config.dim)
        self.to_q = make.linear(config.dim, inner, bias=False)
        self.to_kv = make.linear(config.dim, 2 * inner, bias=False)
        self.to_out = make.linear(inner, config.dim, bias=False)

    def forward(self, x: Tensor, latents: Tensor) -> Tensor:
        """x: (b, n, dim), the picture's; latents: (b, q, dim), the queries' -> (b, q, dim)."""
        x, latents = self.norm1(x), self.norm2(latents)
        k, v = self.to_kv(torch.cat([x, latents], dim=1)).chunk(2, dim=-1)
        out: Tensor = self.to_out(self.attention(self.to_q(latents), k, v, self.heads))
        return out


def _feed_forward(config: ResamplerConfig, make: Factory) -> nn.Sequential:
    """A normalisation, and two linear layers with a GELU between them."""
    return nn.Sequential(
        make.layer_norm(config.dim),
        make.linear(config.dim, config.feed_forward, bias=False),
        nn.GELU(),
        make.linear(config.feed_forward, config.dim, bias=False),
    )


def make_resampler(
    state_dict: Mapping[str, Tensor],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    head_dim: int = 64,
) -> Resampler:
    """Build a Resampler from its weights, as in a checkpoint, in evaluation mode.

    Args:
        state_dict: the weights.
        dtype: of the weights.
        device: of the weights.
        head_dim: which does not follow from shapes.

    Raises:
        T2VError: where the weights are not those of a Resampler.
    """
    resampler = Resampler(ResamplerConfig.of(state_dict, head_dim), device="meta")
    weights = resampler_state(state_dict)
    resampler.load_state_dict({name: weight.to(device, dtype) for name, weight in weights.items()}, assign=True)
    return resampler.eval().requires_grad_(False)


def resampler_state(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the published weights to `Resampler`'s: the parameter "latents", (1, q, d), is an embedding's weight, (q, d).

    Raises:
        T2VError: where "latents" has another shape.
    """
    result = dict(state_dict)
    if "latents" in result:
        latents = result.pop("latents")
        if len(latents.shape) != 3 or latents.shape[0] != 1:
            raise T2VError(f"The queries that make image tokens have the shape {quoted(tuple(latents.shape))}. {AGAIN}")
        result["latents.weight"] = latents.reshape(latents.shape[1:])
    return result
