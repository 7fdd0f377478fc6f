"""Stage four: the decoder once more, so that what the denoiser leaves undone in the latents does not show.

In latents of generated videos outlines lie between what shapes there are: circles have corners, squares are cushions. What
was drawn, noised a little and denoised again, has the same faults and a known right answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from ...pipeline import Pipeline
from ...shapes.captions import describe
from ...shapes.render import render
from ...shapes.world import Scene, place
from ..loop import Schedule, fit
from .autoencoder import NOISE, WORLD, pixel_error, stills
from .clips import kept

TOGETHER = 8
"""Clips that are denoised together."""
STRENGTHS = (0.1, 0.4)
"""How much of the clips is denoised again: with more, things lie elsewhere than they were drawn."""
DENOISED, DRAWN = 4, 4
"""Frames of a step whose latents are the denoiser's, and others with the encoder's."""


def sharpen(
    pipeline: Pipeline, folder: Path, schedule: Schedule, *, clips: int = 480, seed: int = 0, progress: bool = True
) -> nn.Module:
    """Train the decoder of a pipeline on, with the encoder and so the latents as they are; returns the autoencoder.

    clips: so many are drawn and denoised again first, and kept in the folder.
    """
    vae = pipeline.vae
    decoder = nn.ModuleList([vae.post_quant_conv, vae.decoder]).requires_grad_(True)
    images, latents = denoised(pipeline, folder, clips, seed + 8, progress)

    def loss(step: int, random: torch.Generator) -> torch.Tensor:
        at = torch.randint(len(images), (DENOISED,), generator=random)
        drawn = stills(DRAWN, random, crop=False)
        image = 2 * torch.cat([images[at] / 255, drawn]).to(pipeline.device) - 1
        with torch.no_grad():
            own = vae.encode(image[DENOISED:]).latent_dist.mean
            own = own + NOISE / vae.config.scaling_factor * torch.randn_like(own)
        theirs = latents[at].to(own) / vae.config.scaling_factor
        return pixel_error(vae.decode(torch.cat([theirs, own])).sample, image)

    fit(decoder, loss, schedule, folder, seed=seed + 7, title="decoder", progress=progress)
    return vae.eval()


def denoised(
    pipeline: Pipeline, folder: Path, clips: int, seed: int, progress: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames as they were drawn, (n, 3, 64, 64) of 0..255, and their latents, noised and denoised, (n, 4, 8, 8)."""
    groups = list(_drawn(clips, pipeline.defaults.frames, seed))

    def make() -> dict[str, torch.Tensor]:
        from tqdm import tqdm

        parts = []
        for number, (scenes, images, strength) in enumerate(tqdm(groups, "clips", disable=not progress)):
            video = images.movedim(2, -1) / 255
            how = {"strength": strength, "seed": seed + TOGETHER * number, "decode": False}
            made = pipeline([describe(scene) for scene in scenes], video=video, **how)
            parts.append(made.latents.transpose(1, 2).flatten(0, 1).cpu())
        return {"latents": torch.cat(parts)}

    latents = kept(folder / "denoised.safetensors", make)["latents"]
    return torch.cat([images.flatten(0, 1) for _, images, _ in groups]), latents


def _drawn(clips: int, frames: int, seed: int) -> Iterator[tuple[list[Scene], torch.Tensor, float]]:
    """Scenes, their frames (b, t, 3, 64, 64) of 0..255, and how much of them is to be denoised again."""
    random = torch.Generator().manual_seed(seed)
    low, high = STRENGTHS
    for at in range(0, clips, TOGETHER):
        scenes = [WORLD.sample(random) for _ in range(min(TOGETHER, clips - at))]
        images = render(scenes, [place(scene, frames, random) for scene in scenes])
        strength = low + (high - low) * float(torch.rand((), generator=random))
        yield scenes, (255 * images.clamp(0, 1)).round().byte(), strength
