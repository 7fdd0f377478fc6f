"""Latent clips to train on, drawn a chunk at a time: rendering and encoding each only a few times saves half the work.

A chunk is made from the seed and its number alone, so it can be made again; its latents are kept in a file for a
resumed run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Generic, TypeVar

import torch
from safetensors.torch import load_file
from torch import nn

from ...atomic_files import write_tensors
from ...shapes.render import render
from ...shapes.world import DIRECTIONS, Path, Scene, World, place
from ..loop import step_seed

T = TypeVar("T")

RECENT = 8
"""Chunks that clips are drawn from."""

SIZES = {"grows": 1, "shrinks": -1}
"""Motions that change an object's size, and which way."""
SYMMETRY = {"square": 4, "triangle": 3, "star": 5}
"""In how many turned positions a shape looks the same; a circle in all."""

LENGTHS = {16: 0.6, 24: 0.15, 8: 0.25, 1: 1.0}
"""Frames of a clip and how many there are for each clip of a chunk; other lengths are cut out of these."""


class Recent(Generic[T]):
    """An endless series of chunks, each made when it is first asked for; the last few are remembered."""

    def __init__(self, make: Callable[[int], T]) -> None:
        self.make = make
        self.known: dict[int, T] = {}

    def __getitem__(self, number: int) -> T:
        if number not in self.known:
            while len(self.known) > RECENT:
                self.known.pop(min(self.known))
            self.known[number] = self.make(number)
        return self.known[number]

    def draw(self, newest: int, random: torch.Generator, oldest: int = 0) -> T:
        """One of the last chunks up to `newest`, none before `oldest`."""
        return self[max(oldest, newest - int(torch.randint(RECENT, (), generator=random)))]


@dataclass
class Chunk:
    """Clips by length: scenes and their latents (n, 4, length, h, w)."""

    scenes: dict[int, list[Scene]]
    latents: dict[int, torch.Tensor]
    poses: dict[int, torch.Tensor]
    """(n, length, 2, 5), see `poses`."""

    def fast(self, length: int) -> list[int]:
        """Which clips of that length show nothing but fast motion or change of size."""
        scenes = enumerate(self.scenes[length])
        return [i for i, scene in scenes if all(item.speed == "fast" or item.motion in SIZES for item in scene.items)]


@dataclass(frozen=True)
class Clips:
    """What a step is made of."""

    scenes: list[Scene]
    latents: torch.Tensor
    """(n, 4, frames, h, w)."""
    poses: torch.Tensor
    """(n, frames, 2, 5), see `poses`."""


def poses(scene: Scene, ways: list[Path]) -> torch.Tensor:
    """How the objects of a scene lie in every frame, about as large as 1 or -1.

    (frames, 2, 5) for up to two objects: x, y, radius, and the cosine and sine of the angle by which the shape is
    turned, as far as one can see that; NaN where there is nothing to be said.
    """
    out = torch.full((len(ways[0].radius), 2, 5), torch.nan)
    for number, (item, way) in enumerate(zip(scene.items, ways, strict=True)):
        out[:, number, :2] = (way.position - 0.5) / 0.2
        out[:, number, 2] = (way.radius - 0.15) / 0.05
        if item.shape in SYMMETRY:
            angle = SYMMETRY[item.shape] * way.angle
            out[:, number, 3:] = torch.stack([angle.cos(), angle.sin()], -1)
    return out


class Pool:
    """Chunks of encoded clips of a world that may change over the training.

    Args:
        vae: the autoencoder; its scaling factor is applied.
        worlds: (fraction of the training, world) in order: each holds until its fraction is reached.
        chunks: how many the whole training uses.
    """

    def __init__(
        self,
        vae: nn.Module,
        worlds: list[tuple[float, World]],
        chunks: int,
        folder: FilePath,
        *,
        seed: int,
        clips: int = 480,
    ) -> None:
        self.vae, self.worlds, self.count = vae, worlds, chunks
        self.folder, self.seed, self.clips = folder, seed, clips
        self.chunks = Recent(self._make)

    def world(self, number: int) -> World:
        """The world that a chunk shows."""
        return next((world for end, world in self.worlds if number < round(end * self.count)), self.worlds[-1][1])

    def oldest(self, number: int) -> int:
        """The first chunk that shows the same world."""
        return max((end for end in (round(end * self.count) for end, _ in self.worlds) if number >= end), default=0)

    def _make(self, number: int) -> Chunk:
        """A chunk, from its file or made now."""
        world, scenes, paths = self.world(number), {}, {}
        for length, share in LENGTHS.items():
            random = torch.Generator().manual_seed(step_seed(self.seed, number * 101 + length))
            count = round(self.clips * share)
            scenes[length] = [world.sample(random) for _ in range(count)]
            paths[length] = [place(scene, length, random) for scene in scenes[length]]

        def latents(length: int) -> torch.Tensor:
            pairs = list(zip(scenes[length], paths[length], strict=True))
            parts = [zip(*pairs[at : at + 8], strict=True) for at in range(0, len(pairs), 8)]
            return torch.cat([encode(self.vae, render(*map(list, part))) for part in parts])

        path = self.folder / f"chunk{number:04d}.safetensors"
        stored = kept(path, lambda: {f"{length}": latents(length) for length in LENGTHS})
        lying = {length: torch.stack(list(map(poses, scenes[length], paths[length]))) for length in LENGTHS}
        return Chunk(scenes, {length: stored[f"{length}"] for length in LENGTHS}, lying)

    def draw(
        self, newest: int, count: int, frames: int, random: torch.Generator, *, fast: float = 0.0, ahead: int = 1
    ) -> Clips:
        """So many clips of that length, cut from the last chunks up to `newest`.

        fast: share of the clips that is drawn from the fast ones alone, which show most plainly what a direction is.
        ahead: of so many clips the one is taken whose objects are farthest along their motion, see `_advance`.
        """
        lengths = [length for length in LENGTHS if length >= frames]
        if frames > 12 or frames == 1:  # rather the shortest clips that are long enough: their speeds fit
            lengths = [min(lengths)]
        clips = []
        for _ in range(count):
            cuts = [self._cut(newest, frames, lengths, random, fast) for _ in range(ahead)]
            clips.append(max(cuts, key=_advance))
        scenes, latents, lying = zip(*clips, strict=True)
        return Clips(list(scenes), torch.stack(latents), torch.stack(lying))

    def _cut(
        self, newest: int, frames: int, lengths: list[int], random: torch.Generator, fast: float
    ) -> tuple[Scene, torch.Tensor, torch.Tensor]:
        chunk = self.chunks.draw(newest, random, self.oldest(newest))
        length = lengths[int(torch.randint(len(lengths), (), generator=random))]
        known = range(len(chunk.scenes[length]))
        if frames > 1 and float(torch.rand((), generator=random)) < fast:
            known = chunk.fast(length) or known
        index = known[int(torch.randint(len(known), (), generator=random))]
        start = int(torch.randint(length - frames + 1, (), generator=random))
        kept = slice(start, start + frames)
        return chunk.scenes[length][index], chunk.latents[length][index, :, kept], chunk.poses[length][index, kept]


def _advance(cut: tuple[Scene, torch.Tensor, torch.Tensor]) -> float:
    """How far the objects of a cut are in their own directions, or as large or small as they become."""
    scene, _, lying = cut
    total = 0.0
    for item, (x, y, radius, *_) in zip(scene.items, lying.mean(0).tolist(), strict=False):
        right, down = DIRECTIONS.get(item.motion, (0.0, 0.0))
        total += right * x + down * y + SIZES.get(item.motion, 0) * radius
    return total


def kept(path: FilePath, make: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Tensors from a file, in fp32; where there is none yet, they are made and written to it, in fp16."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, {name: value.half() for name, value in make().items()})
    return {name: value.float() for name, value in load_file(path).items()}


@torch.no_grad()
def encode(vae: nn.Module, video: torch.Tensor) -> torch.Tensor:
    """video: (b, t, 3, h, w) in 0..1 -> (b, 4, t, h/8, w/8), scaled to unit variance; computed where the `vae` is."""
    mean = vae.encode((2 * video.flatten(0, 1) - 1).to(vae.device)).latent_dist.mean.to(video.device)
    return (mean * vae.config.scaling_factor).unflatten(0, video.shape[:2]).transpose(1, 2)
