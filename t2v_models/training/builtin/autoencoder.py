"""Stage one: a small autoencoder, from 64x64 pixels to 8x8 latents and back, with sharp edges and exact colours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ...shapes.render import render
from ...shapes.world import World, place
from ..loop import Schedule, fit
from .identity_init import start_as_identity

if TYPE_CHECKING:
    from diffusers.models import AutoencoderKL

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
"""Arguments of diffusers' AutoencoderKL. Channels are multiples of 32, for hosts whose norms always have 32 groups."""

WORLD = World(straight=0.3, diagonal=0.2, other=0.3, pairs=0.2, backgrounds=0.8)
NOISE = 0.06
"""Noise on the latents, in their standard deviations: the decoder must hide the errors that the UNet leaves."""


def build() -> AutoencoderKL:
    """Return an untrained autoencoder."""
    from diffusers.models import AutoencoderKL

    model = AutoencoderKL(**CONFIG)
    start_as_identity(model, CONFIG["norm_num_groups"])
    return model


def stills(count: int, random: torch.Generator, *, crop: bool) -> torch.Tensor:
    """Return random single frames (count, 3, 64, 64) in 0..1.

    Args:
        crop: return (count, 3, 32, 32) around an object, where there is more to learn.
    """
    scenes = [WORLD.sample(random) for _ in range(count)]
    trajectories = [place(scene, 1, random) for scene in scenes]
    image = render(scenes, trajectories)[:, 0]
    if crop:
        corners = torch.stack([objects[0].position[0] for objects in trajectories]).flip(-1) * 64 - 16
        corners = (corners + 24 * torch.rand(count, 2, generator=random) - 12).round().clamp(0, 32).int()
        image = torch.stack([image[row, :, y : y + 32, x : x + 32] for row, (y, x) in enumerate(corners.tolist())])
    order = torch.randperm(3, generator=random)
    image[: count // 5] = image[: count // 5, order]  # colours that the world has no name for
    return image


def pixel_error(decoded: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Return the error between images in -1..1: its absolute value for sharp edges, its square for exact colours."""
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
) -> AutoencoderKL:
    """Train an autoencoder; the scaling factor in its config brings the latents to unit variance.

    Args:
        folder: where the state and the losses are stored; a folder with a state is resumed.
        batch: images in a step.
    """
    torch.manual_seed(seed)
    model = build()
    nn.Module.to(model, device)  # in place; the type of diffusers' own method fits no call

    def loss(step: int, random: torch.Generator) -> torch.Tensor:
        crop = step < 0.75 * schedule.steps
        image = 2 * stills(batch if crop else batch // 4, random, crop=crop).to(device) - 1
        posterior = model.encode(image).latent_dist
        deviation = posterior.mean.detach().std()
        latent = posterior.sample() + NOISE * deviation * torch.randn_like(posterior.mean)
        error = pixel_error(model.decode(latent).sample, image)
        return error + 2e-5 * posterior.kl().mean() / posterior.mean[0].numel() * 16

    fit(model, loss, schedule, folder, seed=seed, title="autoencoder", progress=progress)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        latent = model.encode(2 * stills(256, random, crop=False).to(device) - 1).latent_dist.mean
    model.register_to_config(scaling_factor=round(1 / latent.std().item(), 5))
    return model.eval()


def psnr(model: AutoencoderKL, *, count: int = 64, seed: int = 1) -> float:
    """Return the mean peak signal-to-noise ratio of reconstructions of `count` unseen frames, in dB."""
    image = 2 * stills(count, torch.Generator().manual_seed(seed), crop=False).to(model.device) - 1
    with torch.no_grad():
        decoded = model.decode(model.encode(image).latent_dist.mean).sample.clamp(-1, 1)
    error = ((decoded - image) / 2).square().mean(dim=(1, 2, 3))
    return float((-10 * error.log10()).mean())
