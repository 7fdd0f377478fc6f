"""Clips of several scenes of the moving-shapes world."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

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
    Path,
    Scene,
    World,
    held_out,
)

PLAIN_WORLD = World()


SCENES = (2, 3, 4, 4)
"""How many scenes a clip has: one of these."""


SHORTEST = 2
"""Fewest frames of a scene."""


@dataclass(frozen=True)
class Turn:
    """Scenes, and how many frames each of them lasts."""

    scenes: tuple[Scene, ...]
    lengths: tuple[int, ...]

    @property
    def at(self) -> torch.Tensor:
        """(frames,) the number of each frame's scene."""
        return torch.repeat_interleave(torch.arange(len(self.lengths)), torch.tensor(self.lengths))

    def cut(self, start: int, frames: int) -> Turn:
        """What so many frames of it show, from `start` on."""
        numbers, lengths = self.at[start : start + frames].unique_consecutive(return_counts=True)
        return Turn(tuple(self.scenes[number] for number in numbers), tuple(lengths.tolist()))


def sample_turn(frames: int, random: torch.Generator) -> Turn:
    """Scenes of one object that goes straight: always another way, mostly another colour, sometimes more."""
    scenes = [PLAIN_WORLD.sample(random)]
    for _ in range(_pick(SCENES, random) - 1):
        scenes.append(_following(scenes[-1], random))
    spare = frames - SHORTEST * len(scenes)
    cuts = sorted(int(torch.randint(spare + 1, (), generator=random)) for _ in scenes[1:])
    lengths = [SHORTEST + end - start for start, end in zip([0, *cuts], [*cuts, spare], strict=True)]
    return Turn(tuple(scenes), tuple(lengths))


def _following(scene: Scene, random: torch.Generator) -> Scene:
    def chance(share: float) -> bool:
        return float(torch.rand((), generator=random)) < share

    def other(known: Iterable[str], than: str) -> str:
        return _pick([name for name in known if name != than], random)

    item, ground = scene.items[0], scene.background
    while True:
        after = replace(
            item,
            motion=other(STRAIGHT, item.motion),
            colour=other(OBJECT_COLOURS, item.colour) if chance(0.7) else item.colour,
            shape=other(SHAPES, item.shape) if chance(0.25) else item.shape,
            speed=other(SPEEDS, item.speed) if chance(0.3) else item.speed,
        )
        background = other(BACKGROUNDS, ground) if chance(0.25) else ground
        if background != after.colour and not held_out(after.colour, after.shape, after.motion):
            return Scene((after,), background)


def _pick(known: Sequence[Any], random: torch.Generator) -> Any:
    return known[int(torch.randint(len(known), (), generator=random))]


def place_turn(turn: Turn, random: torch.Generator) -> Path:
    """One way through all scenes, all of it inside the frame, at a steady pace where its words stay the same: a change of
    pace would look like a jump. Where that leaves no room it is drawn anew, each time a little more slowly: so a
    storyteller would, too."""
    radius = RADII[1][0] + (RADII[1][1] - RADII[1][0]) * float(torch.rand((), generator=random))
    room = 1 - 2.1 * radius
    slower = 1.0
    while True:
        steps, pace = [], float(torch.rand((), generator=random))
        for scene, length in zip(turn.scenes, turn.lengths, strict=True):
            low, high = SPEEDS[scene.items[0].speed]
            fits = room / length
            speed = min(low, fits) + (min(high, fits) - min(low, fits)) * pace
            steps += [slower * speed * torch.tensor(DIRECTIONS[scene.items[0].motion])] * length
        offset = torch.stack(steps).cumsum(0)
        extent = offset.amax(0) - offset.amin(0)
        if float(extent.max()) <= room:
            break
        slower *= 0.98
    low, high = 1.04 * radius - offset.amin(0), 1 - 1.04 * radius - offset.amax(0)
    position = low + (high - low).clamp(min=0) * torch.rand(2, generator=random) + offset
    frames = len(position)
    return Path(position, torch.full((frames,), radius), torch.zeros(frames))


def draw_turn(turn: Turn, path: Path) -> torch.Tensor:
    """-> (frames, 3, h, w) in 0..1."""
    return torch.cat([render([scene], [[way]])[0] for scene, way in _parts(turn, path)])


def _parts(turn: Turn, path: Path) -> Iterator[tuple[Scene, Path]]:
    """Every scene and its part of the way."""
    parts = [part.split(turn.lengths) for part in (path.position, path.radius, path.angle)]
    return zip(turn.scenes, map(Path, *parts), strict=True)
