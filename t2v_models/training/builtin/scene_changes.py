"""Clips of several scenes: an object changes its way, its colour or more in the middle, and goes on from where it is.

A window of a film in which one text ends and the next begins looks like this, and so do the key frames of a whole story. A
model that never saw one gives the average of both ways.
"""

from __future__ import annotations

from pathlib import Path as FilePath

import torch
from torch import nn

from ...shapes.scene_changes import Turn, _parts, draw_turn, place_turn, sample_turn
from ...shapes.world import (
    Path,
)
from ..loop import step_seed
from .clips import Recent, encode, kept, poses


def _poses(turn: Turn, path: Path) -> torch.Tensor:
    return torch.cat([poses(scene, [way]) for scene, way in _parts(turn, path)])


class Turns:
    """Chunks of encoded turns, like `Pool`: each is made from the seed and its number alone."""

    def __init__(self, vae: nn.Module, folder: FilePath, *, seed: int, clips: int = 120, frames: int = 16) -> None:
        self.vae, self.folder, self.seed, self.clips, self.frames = vae, folder, seed, clips, frames
        self.chunks = Recent(self._make)

    def _make(self, number: int) -> tuple[list[Turn], torch.Tensor, torch.Tensor]:
        """Turns, latents (n, 4, frames, h, w) and poses (n, frames, 2, 5)."""
        random = torch.Generator().manual_seed(step_seed(self.seed, number * 101 + 7))
        turns = [sample_turn(self.frames, random) for _ in range(self.clips)]
        paths = [place_turn(turn, random) for turn in turns]

        def make() -> dict[str, torch.Tensor]:
            videos = [draw_turn(turn, path) for turn, path in zip(turns, paths, strict=True)]
            parts = [encode(self.vae, torch.stack(videos[at : at + 8])) for at in range(0, len(videos), 8)]
            return {"turns": torch.cat(parts)}

        latents = kept(self.folder / f"turns{number:04d}.safetensors", make)["turns"]
        return turns, latents, torch.stack(list(map(_poses, turns, paths)))

    def draw(
        self, newest: int, count: int, frames: int, random: torch.Generator
    ) -> tuple[list[Turn], torch.Tensor, torch.Tensor]:
        """So many turns, cut to that many frames, of the last chunks up to `newest`, with their latents and poses."""
        drawn = []
        for _ in range(count):
            turns, latents, lying = self.chunks.draw(newest, random)
            index = int(torch.randint(len(turns), (), generator=random))
            start = int(torch.randint(self.frames - frames + 1, (), generator=random))
            cut = slice(start, start + frames)
            drawn.append((turns[index].cut(start, frames), latents[index, :, cut], lying[index, cut]))
        turns, latents, lying = zip(*drawn, strict=True)
        return list(turns), torch.stack(latents), torch.stack(lying)
