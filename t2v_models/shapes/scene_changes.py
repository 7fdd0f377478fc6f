"""Sequences of scenes in one clip: an object changes its direction, colour or more, and moves on from where it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from .render import render
from .world import (
    BACKGROUNDS,
    DIRECTIONS,
    OBJECT_COLOURS,
    RADII,
    SHAPES,
    SPEEDS,
    STRAIGHT,
    Scene,
    Trajectory,
    World,
    held_out,
)

T = TypeVar("T")

PLAIN_WORLD = World()

SCENES = (2, 3, 4, 4)
"""Numbers of scenes of a clip, all equally likely."""

SHORTEST = 2
"""Fewest frames of a scene."""


@dataclass(frozen=True)
class SceneSequence:
    """Scenes of one clip, and how many frames each of them lasts."""

    scenes: tuple[Scene, ...]
    lengths: tuple[int, ...]

    @property
    def at(self) -> torch.Tensor:
        """(frames,) index of each frame's scene."""
        return torch.repeat_interleave(torch.arange(len(self.lengths)), torch.tensor(self.lengths))

    def cut(self, start: int, frames: int) -> SceneSequence:
        """Return the part of `frames` frames from `start` on."""
        numbers, lengths = self.at[start : start + frames].unique_consecutive(return_counts=True)
        return SceneSequence(tuple(self.scenes[number] for number in numbers), tuple(lengths.tolist()))


def sample_sequence(frames: int, random: torch.Generator) -> SceneSequence:
    """Return random scenes of one object whose direction always changes, its colour mostly, other attributes sometimes."""
    scenes = [PLAIN_WORLD.sample(random)]
    for _ in range(_pick(SCENES, random) - 1):
        scenes.append(_next_scene(scenes[-1], random))
    spare = frames - SHORTEST * len(scenes)
    cuts = sorted(int(torch.randint(spare + 1, (), generator=random)) for _ in scenes[1:])
    lengths = [SHORTEST + end - start for start, end in zip([0, *cuts], [*cuts, spare], strict=True)]
    return SceneSequence(tuple(scenes), tuple(lengths))


def _next_scene(scene: Scene, random: torch.Generator) -> Scene:
    def chance(share: float) -> bool:
        return float(torch.rand((), generator=random)) < share

    def other(choices: Iterable[str], than: str) -> str:
        return _pick([name for name in choices if name != than], random)

    item, background = scene.items[0], scene.background
    while True:
        changed = replace(
            item,
            motion=other(STRAIGHT, item.motion),
            colour=other(OBJECT_COLOURS, item.colour) if chance(0.7) else item.colour,
            shape=other(SHAPES, item.shape) if chance(0.25) else item.shape,
            speed=other(SPEEDS, item.speed) if chance(0.3) else item.speed,
        )
        new_background = other(BACKGROUNDS, background) if chance(0.25) else background
        if new_background != changed.colour and not held_out(changed.colour, changed.shape, changed.motion):
            return Scene((changed,), new_background)


def _pick(choices: Sequence[T], random: torch.Generator) -> T:
    return choices[int(torch.randint(len(choices), (), generator=random))]


def place_sequence(sequence: SceneSequence, random: torch.Generator) -> Trajectory:
    """Return a random trajectory through all scenes that stays inside the frame.

    The speed changes only where its adverb does, since another change would look like a jump. If the trajectory does
    not fit, it is drawn again, each time a little slower.
    """
    radius = RADII[1][0] + (RADII[1][1] - RADII[1][0]) * float(torch.rand((), generator=random))
    room = 1 - 2.1 * radius
    slowdown = 1.0
    while True:
        steps, part_of_range = [], float(torch.rand((), generator=random))
        for scene, length in zip(sequence.scenes, sequence.lengths, strict=True):
            low, high = (min(speed, room / length) for speed in SPEEDS[scene.items[0].speed])
            speed = low + (high - low) * part_of_range
            steps += [slowdown * speed * torch.tensor(DIRECTIONS[scene.items[0].motion])] * length
        offset = torch.stack(steps).cumsum(0)
        extent = offset.amax(0) - offset.amin(0)
        if float(extent.max()) <= room:
            break
        slowdown *= 0.98
    lowest, highest = 1.04 * radius - offset.amin(0), 1 - 1.04 * radius - offset.amax(0)
    position = lowest + (highest - lowest).clamp(min=0) * torch.rand(2, generator=random) + offset
    frames = len(position)
    return Trajectory(position, torch.full((frames,), radius), torch.zeros(frames))


def render_sequence(sequence: SceneSequence, trajectory: Trajectory) -> torch.Tensor:
    """Return frames (t, 3, 64, 64) in 0..1."""
    return torch.cat([render([scene], [[part]])[0] for scene, part in by_scene(sequence, trajectory)])


def by_scene(sequence: SceneSequence, trajectory: Trajectory) -> Iterator[tuple[Scene, Trajectory]]:
    """Return each scene with its part of the trajectory."""
    values = (trajectory.position, trajectory.radius, trajectory.angle)
    return zip(sequence.scenes, map(Trajectory, *(value.split(sequence.lengths) for value in values)), strict=True)
