"""Compare what a clip shows with what its prompt asked for."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..shapes.captions import describe
from ..shapes.world import (
    BACKGROUNDS,
    DIRECTIONS,
    MOTIONS,
    RADII,
    SPEEDS,
    STRAIGHT,
    Item,
    Lane,
    Scene,
    combinations,
    lanes,
)
from .analysis import Measured, measure

CRITERIA = ("colour", "shape", "motion", "background", "count", "all")


@dataclass(frozen=True)
class Score:
    """Right or wrong by criterion, and what is measured on a scale."""

    right: dict[str, bool]
    speed_error: float | None
    """How far the speed is outside what its adverb means, relative to the nearer end; None where nothing moves as it
    shall."""
    speed: float | None
    flicker: float | None
    jitter: float | None
    """None where nothing is seen."""
    measured: Measured


def score(scene: Scene, frames: torch.Tensor) -> Score:
    """frames: (t, h, w, 3) in 0..1, measured and compared with a scene."""
    seen = measure(frames)
    found = {thing.colour: thing for thing in seen.objects}
    matched = [found.get(item.colour) for item in scene.items]
    right = {
        "colour": all(matched) and len(found) == len(scene.items),
        "background": seen.background == scene.background,
        # an object that is gone for a while, or comes twice, is no right one; a frame in twelve may be unclear
        "count": 12 * sum(count != len(scene.items) for count in seen.counts) <= len(seen.counts),
    }
    if not all(matched) and len(scene.items) == 1 and len(seen.objects) == 1:
        matched = [seen.objects[0]]  # of a wrong colour, but the only one: shape and motion can still be right
    right["shape"] = all(
        thing is not None and thing.shape == item.shape for thing, item in zip(matched, scene.items, strict=True)
    )
    right["motion"] = all(
        thing is not None and (thing.motion == item.motion or len(frames) == 1)
        for thing, item in zip(matched, scene.items, strict=True)
    )
    right["all"] = all(right.values())
    errors, speeds = [], []
    for thing, item, lane in zip(matched, scene.items, lanes(scene), strict=True):
        if thing is not None and thing.motion == item.motion in DIRECTIONS and len(frames) > 1:
            low, high = within(lane, item, len(frames), RADII[len(scene.items)])
            errors.append(max(low - thing.speed, thing.speed - high, 0) / (low if thing.speed < low else high))
            speeds.append(thing.speed)
    jitter = max((thing.jitter for thing in seen.objects), default=None)
    return Score(
        right,
        sum(errors) / len(errors) if errors else None,
        sum(speeds) / len(speeds) if speeds else None,
        seen.flicker,
        jitter,
        seen,
    )


def within(lane: Lane, item: Item, frames: int, radii: tuple[float, float]) -> tuple[float, float]:
    """The slowest and fastest that an adverb may mean where the object must stay inside its part of the frame: the
    largest one need not be faster than it has room for, and the smallest one cannot be."""
    low, high = SPEEDS[item.speed]

    def reach(radius: float) -> float:
        ways = zip(lane, DIRECTIONS[item.motion], strict=True)
        return min((end - begin - 2 * radius) / abs(way) for (begin, end), way in ways if way) / (frames - 1)

    return min(low, reach(1.05 * radii[1])), min(high, reach(radii[0] / 2))


@dataclass(frozen=True)
class Question:
    """One prompt of an evaluation."""

    group: str
    scene: Scene
    seed: int

    @property
    def prompt(self) -> str:
        """The plain caption."""
        return describe(self.scene)


def questions(counts: dict[str, int], seed: int = 0) -> list[Question]:
    """Prompts by group: "plain" and "held out" (world i), "other" (ii), "pairs" (iii).

    Colours, shapes, motions, speeds and backgrounds take turns, so that each is asked about equally often.
    """
    random = torch.Generator().manual_seed(seed)
    others = tuple(motion for motion in MOTIONS if motion not in STRAIGHT)
    pools = {
        "plain": combinations(STRAIGHT),
        "held out": combinations(STRAIGHT, True),
        "other": combinations(others),
        "pairs": combinations(STRAIGHT),
    }
    asked = []
    for group, count in counts.items():
        order = _shuffled(pools[group], random, 2 * count)
        for index in range(count):
            chosen = [order[index]]
            if group == "pairs":
                chosen.append(next(c for c in order[index + 1 :] if c[0] != order[index][0]))
            items = []
            for number, (colour, shape, motion) in enumerate(chosen):
                adverb = tuple(SPEEDS)[(index + number) % 3] if motion in DIRECTIONS else ""
                items.append(Item(colour, shape, motion, adverb))
            free = [name for name in BACKGROUNDS if all(name != item.colour for item in items)]
            ground = "black" if index % 2 else free[(index // 2) % len(free)]
            asked.append(Question(group, Scene(tuple(items), ground), 10_000 + len(asked)))
    return asked


def _shuffled(pool: list[tuple[str, str, str]], random: torch.Generator, least: int) -> list[tuple[str, str, str]]:
    out: list[tuple[str, str, str]] = []
    while len(out) < least + 8:
        out += [pool[i] for i in torch.randperm(len(pool), generator=random).tolist()]
    return out
