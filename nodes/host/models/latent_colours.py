"""Colours of latents for previews, fitted to a VAE."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor


def latent_colours(vae: Any, scale_factor: float) -> tuple[list[list[float]], list[float]]:
    """How a VAE's latents show colours: (4, 3) factors and (3,) bias to -1..1, fitted to images of two colours each."""
    images = _two_coloured()
    latents = vae.encode(images)[0].cpu().double() * scale_factor  # (4, n, h, w)
    colours = torch.nn.functional.adaptive_avg_pool2d(images.movedim(-1, 1), latents.shape[-2:]).movedim(1, -1)
    known = torch.cat([latents.flatten(1).T, torch.ones(latents[0].numel(), 1, dtype=torch.float64)], dim=1)
    solution = torch.linalg.lstsq(known, 2.0 * colours.reshape(-1, 3).double() - 1.0).solution
    return solution[:-1].tolist(), solution[-1].tolist()


def _two_coloured() -> Tensor:
    """(56, 32, 32, 3) of 0..1: each pair of the eight extreme colours, with their border within latent pixels, since
    what latents tell of borders shows in a preview, too."""
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    borders = (x < 12, y < 12, x + y < 28, x < y + 4)
    colours = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
    pairs = itertools.permutations(colours, 2)
    return torch.stack([torch.where(borders[i % len(borders)][..., None], *pair) for i, pair in enumerate(pairs)])
