"""Stage one: a small autoencoder, 64x64 pixels to 8x8 latents and back with sharp edges and exact colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...shapes.render import render
from ...shapes.world import Scene, World, place
from ..loop import Schedule, fit
from .identity_init import start_as_identity

CONFIG: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [32, 32, 64, 64],
    "layers_per_block": 1,
    "act_fn": "silu",
    "latent_channels": 4,
    "norm_num_groups": 8,
    "sample_size": 64,
    "force_upcast": False,
}
"""diffusers' AutoencoderKL; everything is a multiple of 32, as hosts with 32 fixed groups want it."""

WORLD = World(straight=0.3, diagonal=0.2, other=0.3, pairs=0.2, backgrounds=0.8)
NOISE = 0.06
"""Noise on the latents, in their standard deviations: what the denoiser leaves behind must not show."""


def build() -> nn.Module:
    """An untrained autoencoder."""
    from diffusers import AutoencoderKL

    model = AutoencoderKL(**CONFIG)
    start_as_identity(model, CONFIG["norm_num_groups"])
    return model


def stills(count: int, random: torch.Generator, *, crop: bool) -> torch.Tensor:
    """(count, 3, 64, 64) single frames; with crop the 32x32 around an object, where there is more to learn."""
    scenes: list[Scene] = [WORLD.sample(random) for _ in range(count)]
    paths = [place(scene, 1, random) for scene in scenes]
    image = render(scenes, paths)[:, 0]
    if crop:
        at = torch.stack([path[0].position[0] for path in paths]).flip(-1) * 64 - 16
        at = (at + 24 * torch.rand(count, 2, generator=random) - 12).round().clamp(0, 32).int().tolist()
        image = torch.stack([image[row, :, y : y + 32, x : x + 32] for row, (y, x) in enumerate(at)])
    order = torch.randperm(3, generator=random)
    image[: count // 5] = image[: count // 5, order]  # colours that have no name in the world
    return image


def pixel_error(decoded: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Between images of -1..1: sharp edges by the absolute, exact colours by the square."""
    error = decoded - image
    return error.abs().mean() + 4 * error.square().mean()


def train(
    folder: Path,
    schedule: Schedule,
    *,
    seed: int = 0,
    batch: int = 32,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> nn.Module:
    """Train from a seed; the scaling factor that makes the latents' variance 1 is set in the model's config."""
    torch.manual_seed(seed)
    model = build().to(device)

    def loss(step: int, random: torch.Generator) -> torch.Tensor:
        crop = step < 0.75 * schedule.steps
        image = 2 * stills(batch if crop else batch // 4, random, crop=crop).to(device) - 1
        posterior = model.encode(image).latent_dist
        spread = posterior.mean.detach().std()
        latent = posterior.sample() + NOISE * spread * torch.randn_like(posterior.mean)
        error = pixel_error(model.decode(latent).sample, image)
        return error + 2e-5 * posterior.kl().mean() / posterior.mean[0].numel() * 16

    model = fit(model, loss, schedule, folder, seed=seed, title="autoencoder", progress=progress)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        latent = model.encode(2 * stills(256, random, crop=False).to(device) - 1).latent_dist.mean
    model.register_to_config(scaling_factor=round(1 / latent.std().item(), 5))
    return model.eval()


def psnr(model: nn.Module, *, count: int = 64, seed: int = 1) -> float:
    """Mean peak signal-to-noise ratio of reconstructions of unseen frames, in dB."""
    image = 2 * stills(count, torch.Generator().manual_seed(seed), crop=False).to(model.device) - 1
    with torch.no_grad():
        again = model.decode(model.encode(image).latent_dist.mean).sample.clamp(-1, 1)
    error = ((again - image) / 2).square().mean(dim=(1, 2, 3))
    return float((-10 * error.log10()).mean())
