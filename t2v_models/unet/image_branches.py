"""I2VGen-XL's three small networks that show the UNet a picture."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import T2VError
from .attention import Attention, Heads, scaled_dot_product
from .config import UNetConfig
from .factory import Factory

GRID = 32
"""Height and width to which the latent is averaged before it becomes (GRID / 4)**2 tokens."""


class ImageBranches(nn.Module):
    """Image latents to channels beside the noisy latent, and a picture to tokens beside the text's.

    Source: Zhang et al. 2023, I2VGen-XL (arXiv:2311.04145). Module names are those of its authors' VGen.
    """

    def __init__(self, config: UNetConfig, make: Factory) -> None:
        super().__init__()
        channels, self.context_dim = config.in_channels // 2, config.context_dim
        self.local_image_concat = nn.Sequential(
            make.convolution(channels, 4 * channels, 3, padding=1),
            nn.SiLU(),
            make.convolution(4 * channels, 4 * channels, 3, padding=1),
            nn.SiLU(),
            make.convolution(4 * channels, channels, 3, padding=1),
        )
        self.local_temporal_encoder = TemporalEncoder(channels, make)
        self.local_image_embedding = nn.Sequential(
            make.convolution(channels, 8 * channels, 3, padding=1),
            nn.SiLU(),
            Average(),
            make.convolution(8 * channels, 16 * channels, 3, stride=2, padding=1),
            nn.SiLU(),
            make.convolution(16 * channels, config.context_dim, 3, stride=2, padding=1),
        )
        self.context_embedding = nn.Sequential(
            make.linear(config.context_dim, config.embed_dim),
            nn.SiLU(),
            make.linear(config.embed_dim, channels * config.context_dim),
        )

    def with_channels(self, x: Tensor) -> Tensor:
        """The UNet's input: of x, (b, 2c, t, h, w), the noisy latent, and what is made of the image latents behind it."""
        noisy, latents = x.chunk(2, dim=1)
        b, _, t, h, w = latents.shape
        made = self.local_image_concat(latents.transpose(1, 2).flatten(0, 1))  # (b t) c h w
        made = made.unflatten(0, (b, t)).permute(0, 3, 4, 1, 2).flatten(0, 2)  # (b h w) t c
        made = self.local_temporal_encoder(made).unflatten(0, (b, h, w))
        return torch.cat([noisy, made.permute(0, 4, 3, 1, 2)], dim=1)

    def tokens(self, latent: Tensor, embedding: Tensor) -> Tensor:
        """What joins the text's tokens, 64 of the latent and as many of the embedding as the latent has channels.

        Args:
            latent: (b, c, h, w) of the picture.
            embedding: (b, d) CLIP's pooled and projected embedding of the picture; zeros for the unconditional branch.

        Returns:
            (b, 64 + c, d)
        """
        local = self.local_image_embedding(latent).flatten(2).transpose(1, 2)
        whole = self.context_embedding(embedding).unflatten(-1, (-1, self.context_dim))
        return torch.cat([local, whole], dim=1)


def with_tokens(text: Tensor, image: Tensor | None, strength: float = 1) -> Tensor:
    """Text tokens (b, n, d), or (b, t, n, d), one text per frame, and image tokens (b, i, d), as one context.

    strength: a factor on the image tokens; 0 leaves them out.

    Raises:
        T2VError: where there are no such image tokens for each text.
    """
    if image is None or not strength:
        return text
    if image.ndim != 3 or (image.shape[0], image.shape[-1]) != (text.shape[0], text.shape[-1]):
        raise T2VError(
            f"The image tokens have shape {tuple(image.shape)}: ({text.shape[0]}, tokens, {text.shape[-1]}) is wanted, as "
            "`image_branches.tokens` makes them."
        )
    image = image.to(text.dtype) * strength if strength != 1 else image.to(text.dtype)
    if text.ndim == 4:
        image = image[:, None].expand(-1, text.shape[1], -1, -1)
    return torch.cat([text, image], dim=-2)


class TemporalEncoder(nn.Module):
    """Attention of each pixel over the frames, and a feed-forward without a normalisation of its own."""

    def __init__(self, channels: int, make: Factory) -> None:
        super().__init__()
        make = replace(make, attention=scaled_dot_product)  # a host's kernels may not take heads of four channels
        self.norm = make.layer_norm(channels)
        self.attn = Attention(channels, None, Heads(2, channels), make)
        self.ff = nn.Sequential(make.linear(channels, 4 * channels), nn.GELU(), make.linear(4 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """x: (n, t, c) -> the same shape."""
        x = self.attn(self.norm(x)) + x
        out: Tensor = self.ff(x) + x
        return out


class Average(nn.Module):
    """The mean of a latent's parts, (b, c, h, w) -> (b, c, GRID, GRID)."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "mps":  # Apple's GPUs average only into parts of one size
            return F.adaptive_avg_pool2d(x.cpu(), GRID).to(x.device)
        return F.adaptive_avg_pool2d(x, GRID)
