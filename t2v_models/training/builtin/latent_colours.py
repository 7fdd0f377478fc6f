"""The colours that a VAE's latents show, for previews of unfinished videos."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from diffusers.models import AutoencoderKL


def fit(vae: AutoencoderKL) -> list[list[float]]:
    """Fit a linear map from scaled latents to colours in -1..1, by least squares over images of two colours each.

    Returns five rows of red, green and blue: one for each of the 4 latent channels, and the constant; see
    `Family.latent_colours`.
    """
    images = two_coloured()
    with torch.no_grad():
        sent = (2.0 * images.movedim(-1, 1) - 1.0).to(vae.device, vae.dtype)
        latents = vae.encode(sent).latent_dist.mean.cpu().double() * vae.config["scaling_factor"]  # (n, 4, h, w)
    colours = torch.nn.functional.adaptive_avg_pool2d(images.movedim(-1, 1), latents.shape[-2:]).movedim(1, -1)
    known = latents.movedim(1, -1).flatten(0, -2)
    known = torch.cat([known, torch.ones(len(known), 1, dtype=torch.float64)], dim=1)
    solution = torch.linalg.lstsq(known, 2.0 * colours.reshape(-1, 3).double() - 1.0).solution
    return [[round(value, 5) for value in row] for row in solution.tolist()]


def two_coloured() -> Tensor:
    """Draw each pair of the eight extreme colours, (56, 32, 32, 3), 0..1, with a border within latent pixels.

    Latents of a border differ from those of an even colour, and a preview shows both.
    """
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    borders = (x < 12, y < 12, x + y < 28, x < y + 4)
    colours = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
    pairs = itertools.permutations(colours, 2)
    return torch.stack([torch.where(borders[i % len(borders)][..., None], *pair) for i, pair in enumerate(pairs)])
