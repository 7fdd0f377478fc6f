"""Stage four: the decoder learns to hide the errors that the UNet leaves in the latents.

In generated latents, outlines lie between those of the shapes: circles have corners, squares have round sides. Latents of
drawn clips have these faults too when they are noised a little and denoised again, and their frames are known.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ...pipeline import Pipeline
from ...shapes.captions import describe
from ...shapes.render import render
from ...shapes.world import Scene, place
from ..loop import Schedule, fit
from .autoencoder import NOISE, WORLD, pixel_error, stills
from .clips import TOGETHER, cached

if TYPE_CHECKING:
    from diffusers.models import AutoencoderKL

STRENGTHS = (0.1, 0.4)
"""Range of the strength at which clips are denoised again: at more, objects move away from where they were drawn."""
DENOISED, DRAWN = 4, 4
"""Frames of a step whose latents are denoised ones, and frames whose latents are the encoder's."""


def sharpen(
    pipeline: Pipeline, folder: Path, schedule: Schedule, *, clips: int = 480, seed: int = 0, progress: bool = True
) -> AutoencoderKL:
    """Train the decoder of a pipeline further and return the autoencoder; its encoder stays as it is.

    Args:
        folder: where the state, the losses and the denoised latents are stored; a folder with a state is resumed.
        clips: number of clips that are drawn and denoised again for the training.
    """
    vae: AutoencoderKL = pipeline.vae
    parts = [part for part in (vae.post_quant_conv, vae.decoder) if part is not None]
    decoder = nn.ModuleList(parts).requires_grad_(True)
    images, latents = denoised(pipeline, folder, clips, seed + 8, progress)

    def loss(step: int, random: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(images), (DENOISED,), generator=random)
        drawn = stills(DRAWN, random, crop=False)
        image = 2 * torch.cat([images[chosen] / 255, drawn]).to(pipeline.device) - 1
        with torch.no_grad():
            encoded = vae.encode(image[DENOISED:]).latent_dist.mean
            encoded = encoded + NOISE / vae.config["scaling_factor"] * torch.randn_like(encoded)
        repeated = latents[chosen].to(encoded) / vae.config["scaling_factor"]
        return pixel_error(vae.decode(torch.cat([repeated, encoded])).sample, image)

    fit(decoder, loss, schedule, folder, seed=seed + 7, title="decoder", progress=progress)
    return vae.eval()


def denoised(
    pipeline: Pipeline, folder: Path, clips: int, seed: int, progress: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return drawn frames (n, 3, 64, 64) in 0..255, and their latents (n, 4, 8, 8) after noising and denoising."""
    groups = list(_drawn(clips, pipeline.defaults.frames, seed))

    def make() -> dict[str, torch.Tensor]:
        from tqdm import tqdm

        parts = []
        for number, (scenes, images, strength) in enumerate(tqdm(groups, "clips", disable=not progress)):
            video = images.movedim(2, -1) / 255
            prompts = [describe(scene) for scene in scenes]
            made = pipeline(prompts, video=video, strength=strength, seed=seed + TOGETHER * number, decode=False)
            parts.append(made.latents.transpose(1, 2).flatten(0, 1).cpu())
        return {"latents": torch.cat(parts)}

    latents = cached(folder / "denoised.safetensors", make)["latents"]
    return torch.cat([images.flatten(0, 1) for _, images, _ in groups]), latents


def _drawn(clips: int, frames: int, seed: int) -> Iterator[tuple[list[Scene], torch.Tensor, float]]:
    """Scenes, their frames (b, t, 3, 64, 64) in 0..255, and the strength at which to denoise them, a group at a time."""
    random = torch.Generator().manual_seed(seed)
    low, high = STRENGTHS
    for at in range(0, clips, TOGETHER):
        scenes = [WORLD.sample(random) for _ in range(min(TOGETHER, clips - at))]
        images = render(scenes, [place(scene, frames, random) for scene in scenes])
        strength = low + (high - low) * float(torch.rand((), generator=random))
        yield scenes, (255 * images.clamp(0, 1)).round().byte(), strength
