"""Single pictures to train on: their scenes, latents and captions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ...shapes.captions import describe_still, paraphrase_still
from ...shapes.render import render
from ...shapes.world import Scene, Trajectory, World
from ..loop import step_seed
from .clips import RecentChunks, cached, encode

if TYPE_CHECKING:
    from diffusers.models import AutoencoderKL

WORLD = World(straight=0.5, other=0.5, backgrounds=0.6)
RADIUS = (0.13, 0.2)
"""Smallest and largest radius of an object, in widths of a panel."""
PANELS = 2
"""Panels of a wide picture."""

EMPTY, PLAIN = 0.12, 0.2
"""Shares of empty captions, which classifier-free guidance needs, and of plain ones."""

TOGETHER = 32
"""Pictures that are encoded in one call."""


@dataclass(frozen=True)
class Pictures:
    """Scenes, and their latents (n, 4, 8, 8 * panels)."""

    scenes: list[Scene]
    latents: torch.Tensor


def draw_picture(scene: Scene, panels: int, random: torch.Generator) -> torch.Tensor:
    """Return a picture (3, 64, 64 * panels) in 0..1 with an object in each panel, its place and size random."""
    radius = RADIUS[0] + (RADIUS[1] - RADIUS[0]) * torch.rand(panels, generator=random)
    margin = 1.04 * radius[:, None]
    position = margin + (1 - 2 * margin) * torch.rand(panels, 2, generator=random)
    squares = render([scene], [[Trajectory(position, radius, torch.zeros(panels))]])[0]
    return torch.cat(list(squares), -1)


class PicturePool:
    """Encoded pictures, made a chunk at a time, each from the seed and its number alone.

    Args:
        vae: the autoencoder; its scaling factor is applied.
        folder: where latents are stored.
        panels: in a chunk of pictures of one panel, and in a chunk of wide ones.
    """

    def __init__(self, vae: AutoencoderKL, folder: Path, *, seed: int, panels: int) -> None:
        self.vae, self.folder, self.seed, self.panels = vae, folder, seed, panels
        self.chunks = {panels: RecentChunks(partial(self._make, panels)) for panels in (1, PANELS)}

    def _make(self, panels: int, number: int) -> Pictures:
        random = torch.Generator().manual_seed(step_seed(self.seed, number * 101 + panels))
        scenes = [WORLD.sample(random) for _ in range(max(TOGETHER, self.panels // panels))]

        def latents() -> dict[str, torch.Tensor]:
            images = torch.stack([draw_picture(scene, panels, random) for scene in scenes])
            parts = [encode(self.vae, part[:, None])[:, :, 0] for part in images.split(TOGETHER)]
            return {"latents": torch.cat(parts)}

        return Pictures(scenes, cached(self.folder / f"panels{panels}-{number:04d}.safetensors", latents)["latents"])

    def draw(self, newest: int, count: int, panels: int, random: torch.Generator) -> Pictures:
        """Return random pictures from the last chunks up to `newest`."""
        drawn = []
        for _ in range(count):
            chunk = self.chunks[panels].draw(newest, random)
            index = int(torch.randint(len(chunk.scenes), (), generator=random))
            drawn.append((chunk.scenes[index], chunk.latents[index]))
        return Pictures([scene for scene, _ in drawn], torch.stack([latent for _, latent in drawn]))


def caption(scene: Scene, random: torch.Generator) -> str:
    """Return a random caption of a picture, sometimes an empty one."""
    choice = float(torch.rand((), generator=random))
    if choice < EMPTY:
        return ""
    return describe_still(scene) if choice < EMPTY + PLAIN else paraphrase_still(scene, random)
