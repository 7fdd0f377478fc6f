"""Latent clips to train on, made a chunk at a time: drawing from the same chunks saves half of the rendering.

A chunk is made from the seed and its number alone, so it can be made again. Its latents are written to a file for a
resumed training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from safetensors.torch import load_file

from ...atomic_files import write_tensors
from ...shapes.render import render
from ...shapes.scene_changes import SceneSequence, by_scene, place_sequence, render_sequence, sample_sequence
from ...shapes.world import DIRECTIONS, Scene, Trajectory, World, place
from ..loop import step_seed

if TYPE_CHECKING:
    from diffusers.models import AutoencoderKL

T = TypeVar("T")

RECENT = 8
"""Number of chunks that clips are drawn from."""

SIZES = {"grows": 1, "shrinks": -1}
"""Motions that change an object's size, and the sign of the change."""

SYMMETRY = {"square": 4, "triangle": 3, "star": 5}
"""Number of rotations that leave a shape as it is; a circle has no visible rotation."""

LENGTHS = {16: 0.6, 24: 0.15, 8: 0.25, 1: 1.0}
"""Clips of each length in frames, per clip of a chunk; other lengths are cut out of these."""

TOGETHER = 8
"""Clips that are encoded in one call."""


class RecentChunks(Generic[T]):
    """An endless series of chunks, each made when it is first needed; the last few stay in memory."""

    def __init__(self, make: Callable[[int], T]) -> None:
        self.make = make
        self.chunks: dict[int, T] = {}

    def __getitem__(self, number: int) -> T:
        if number not in self.chunks:
            while len(self.chunks) > RECENT:
                self.chunks.pop(min(self.chunks))
            self.chunks[number] = self.make(number)
        return self.chunks[number]

    def draw(self, newest: int, random: torch.Generator, oldest: int = 0) -> T:
        """Return one of the last chunks up to `newest`, but none before `oldest`."""
        return self[max(oldest, newest - int(torch.randint(RECENT, (), generator=random)))]


@dataclass
class Chunk:
    """Scenes, latents and poses by length in frames."""

    scenes: dict[int, list[Scene]]
    latents: dict[int, torch.Tensor]
    """(n, 4, length, h, w)."""
    poses: dict[int, torch.Tensor]
    """(n, length, 2, 5), see the function `poses`."""

    def fast(self, length: int) -> list[int]:
        """Return the indices of clips of this length in which all objects move fast or change their size."""
        scenes = enumerate(self.scenes[length])
        return [i for i, scene in scenes if all(item.speed == "fast" or item.motion in SIZES for item in scene.items)]


@dataclass(frozen=True)
class Clip:
    """One scene, its latents (4, frames, h, w) and its poses (frames, 2, 5)."""

    scene: Scene
    latents: torch.Tensor
    poses: torch.Tensor

    @property
    def progress(self) -> float:
        """How far the objects are along their directions, and how far those that change size have grown or shrunk."""
        total = 0.0
        for item, (x, y, radius, *_) in zip(self.scene.items, self.poses.mean(0).tolist(), strict=False):
            right, down = DIRECTIONS.get(item.motion, (0.0, 0.0))
            total += right * x + down * y + SIZES.get(item.motion, 0) * radius
        return total


@dataclass(frozen=True)
class Clips:
    """Clips of one scene each, for a training step."""

    scenes: list[Scene]
    latents: torch.Tensor
    """(n, 4, frames, h, w)."""
    poses: torch.Tensor
    """(n, frames, 2, 5), see the function `poses`."""


@dataclass(frozen=True)
class SequenceClips:
    """Clips of several scenes each, for a training step."""

    sequences: list[SceneSequence]
    latents: torch.Tensor
    """(n, 4, frames, h, w)."""
    poses: torch.Tensor
    """(n, frames, 2, 5), see the function `poses`."""


def poses(scene: Scene, trajectories: list[Trajectory]) -> torch.Tensor:
    """Return how the objects lie in every frame, in numbers of about 1 or -1.

    (frames, 2, 5) for up to two objects: x, y, radius, and the cosine and sine of the visible rotation. NaN where there
    is no second object, or no visible rotation.
    """
    out = torch.full((len(trajectories[0].radius), 2, 5), torch.nan)
    for number, (item, trajectory) in enumerate(zip(scene.items, trajectories, strict=True)):
        out[:, number, :2] = (trajectory.position - 0.5) / 0.2
        out[:, number, 2] = (trajectory.radius - 0.15) / 0.05
        if item.shape in SYMMETRY:
            angle = SYMMETRY[item.shape] * trajectory.angle
            out[:, number, 3:] = torch.stack([angle.cos(), angle.sin()], -1)
    return out


class ClipPool:
    """Chunks of encoded clips of a world that may change during the training.

    Args:
        vae: the autoencoder; its scaling factor is applied.
        worlds: (share of the training, world) in order; each world lasts until its share is reached.
        chunks: how many the whole training uses.
        folder: where latents are stored.
        clips: clips in a chunk, see `LENGTHS`.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        worlds: list[tuple[float, World]],
        chunks: int,
        folder: Path,
        *,
        seed: int,
        clips: int = 480,
    ) -> None:
        self.vae, self.worlds, self.count = vae, worlds, chunks
        self.folder, self.seed, self.clips = folder, seed, clips
        self.chunks = RecentChunks(self._make)

    def world(self, number: int) -> World:
        """Return the world of a chunk."""
        return next((world for end, world in self.worlds if number < round(end * self.count)), self.worlds[-1][1])

    def oldest(self, number: int) -> int:
        """Return the number of the first chunk with the world of this one."""
        return max((end for end in (round(end * self.count) for end, _ in self.worlds) if number >= end), default=0)

    def _make(self, number: int) -> Chunk:
        world = self.world(number)
        scenes: dict[int, list[Scene]] = {}
        trajectories: dict[int, list[list[Trajectory]]] = {}
        for length, share in LENGTHS.items():
            random = torch.Generator().manual_seed(step_seed(self.seed, number * 101 + length))
            scenes[length] = [world.sample(random) for _ in range(round(self.clips * share))]
            trajectories[length] = [place(scene, length, random) for scene in scenes[length]]

        def latents(length: int) -> torch.Tensor:
            parts = [slice(at, at + TOGETHER) for at in range(0, len(scenes[length]), TOGETHER)]
            return torch.cat(
                [encode(self.vae, render(scenes[length][part], trajectories[length][part])) for part in parts]
            )

        path = self.folder / f"chunk{number:04d}.safetensors"
        stored = cached(path, lambda: {f"{length}": latents(length) for length in LENGTHS})
        return Chunk(
            scenes,
            {length: stored[f"{length}"] for length in LENGTHS},
            {length: torch.stack(list(map(poses, scenes[length], trajectories[length]))) for length in LENGTHS},
        )

    def draw(
        self, newest: int, count: int, frames: int, random: torch.Generator, *, fast: float = 0.0, ahead: int = 1
    ) -> Clips:
        """Return random clips, cut from the last chunks up to `newest`.

        Args:
            count: number of clips.
            frames: frames of each clip.
            fast: share of the clips that is drawn from the fast ones alone, which show their direction most plainly.
            ahead: number of random clips of which the one with the most progress is taken, see `Clip.progress`.
        """
        lengths = [length for length in LENGTHS if length >= frames]
        if frames > 12 or frames == 1:  # only the shortest clips that are long enough, because their speeds fit
            lengths = [min(lengths)]
        drawn = []
        for _ in range(count):
            candidates = [self._draw_clip(newest, frames, lengths, random, fast) for _ in range(ahead)]
            drawn.append(max(candidates, key=lambda clip: clip.progress))
        return Clips(
            [clip.scene for clip in drawn],
            torch.stack([clip.latents for clip in drawn]),
            torch.stack([clip.poses for clip in drawn]),
        )

    def _draw_clip(self, newest: int, frames: int, lengths: list[int], random: torch.Generator, fast: float) -> Clip:
        chunk = self.chunks.draw(newest, random, self.oldest(newest))
        length = lengths[int(torch.randint(len(lengths), (), generator=random))]
        choices = list(range(len(chunk.scenes[length])))
        if frames > 1 and float(torch.rand((), generator=random)) < fast:
            choices = chunk.fast(length) or choices
        index = choices[int(torch.randint(len(choices), (), generator=random))]
        start = int(torch.randint(length - frames + 1, (), generator=random))
        span = slice(start, start + frames)
        return Clip(
            chunk.scenes[length][index], chunk.latents[length][index, :, span], chunk.poses[length][index, span]
        )


class SequencePool:
    """Chunks of encoded clips of several scenes.

    A film's window in which one text ends and the next begins looks like such a clip, and so do the key frames of a
    story. A model that never saw one draws the average of both motions.
    """

    def __init__(self, vae: AutoencoderKL, folder: Path, *, seed: int, clips: int = 120, frames: int = 16) -> None:
        self.vae, self.folder, self.seed, self.clips, self.frames = vae, folder, seed, clips, frames
        self.chunks = RecentChunks(self._make)

    def _make(self, number: int) -> SequenceClips:
        random = torch.Generator().manual_seed(step_seed(self.seed, number * 101 + 7))
        sequences = [sample_sequence(self.frames, random) for _ in range(self.clips)]
        trajectories = [place_sequence(sequence, random) for sequence in sequences]

        def make() -> dict[str, torch.Tensor]:
            videos = list(map(render_sequence, sequences, trajectories))
            parts = [videos[at : at + TOGETHER] for at in range(0, len(videos), TOGETHER)]
            return {"latents": torch.cat([encode(self.vae, torch.stack(part)) for part in parts])}

        latents = cached(self.folder / f"sequences{number:04d}.safetensors", make)["latents"]
        return SequenceClips(sequences, latents, torch.stack(list(map(_sequence_poses, sequences, trajectories))))

    def draw(self, newest: int, count: int, frames: int, random: torch.Generator) -> SequenceClips:
        """Return `count` random clips of `frames` frames, cut from the last chunks up to `newest`."""
        sequences, latents, poses = [], [], []
        for _ in range(count):
            chunk = self.chunks.draw(newest, random)
            index = int(torch.randint(len(chunk.sequences), (), generator=random))
            start = int(torch.randint(self.frames - frames + 1, (), generator=random))
            sequences.append(chunk.sequences[index].cut(start, frames))
            latents.append(chunk.latents[index, :, start : start + frames])
            poses.append(chunk.poses[index, start : start + frames])
        return SequenceClips(sequences, torch.stack(latents), torch.stack(poses))


def _sequence_poses(sequence: SceneSequence, trajectory: Trajectory) -> torch.Tensor:
    return torch.cat([poses(scene, [part]) for scene, part in by_scene(sequence, trajectory)])


def cached(path: Path, make: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return the tensors of a file in fp32; if there is no file, call `make` and write its tensors in fp16 first."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, {name: value.half() for name, value in make().items()})
    return {name: value.float() for name, value in load_file(path).items()}


@torch.no_grad()
def encode(vae: AutoencoderKL, video: torch.Tensor) -> torch.Tensor:
    """video: (b, t, 3, h, w) in 0..1 -> (b, 4, t, h/8, w/8) of unit variance; computed on the device of `vae`."""
    mean = vae.encode((2 * video.flatten(0, 1) - 1).to(vae.device)).latent_dist.mean.to(video.device)
    return (mean * vae.config["scaling_factor"]).unflatten(0, video.shape[:2]).transpose(1, 2)
