"""Compare what a clip shows with its prompt."""

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
    Scene,
    Track,
    combinations,
    tracks,
)
from .analysis import Measured, measure

CRITERIA = ("colour", "shape", "motion", "background", "count", "all")


@dataclass(frozen=True)
class Score:
    """Which criteria a clip meets, and what is measured on a scale."""

    right: dict[str, bool]
    """By criterion."""
    speed_error: float | None
    """Distance of the speed from the range of its adverb, relative to the nearer end; None if no motion is right."""
    speed: float | None
    """Mean over the objects, in frame widths per frame; None if no motion is right."""
    flicker: float | None
    """See `Measured.flicker`."""
    jitter: float | None
    """Largest `Found.jitter`; None if no object is seen."""
    measured: Measured


def score(scene: Scene, frames: torch.Tensor) -> Score:
    """Measure frames (t, h, w, 3) in 0..1 and compare them with a scene."""
    seen = measure(frames)
    by_colour = {found.colour: found for found in seen.objects}
    matched = [by_colour.get(item.colour) for item in scene.items]
    right = {
        "colour": all(matched) and len(by_colour) == len(scene.items),
        "background": seen.background == scene.background,
        # an object must neither disappear for a while nor appear twice; one frame in twelve may be unclear
        "count": 12 * sum(count != len(scene.items) for count in seen.counts) <= len(seen.counts),
    }
    if not all(matched) and len(scene.items) == 1 and len(seen.objects) == 1:
        matched = [seen.objects[0]]  # of a wrong colour, but the only one: shape and motion can still be right
    pairs = list(zip(matched, scene.items, strict=True))
    right["shape"] = all(found is not None and found.shape == item.shape for found, item in pairs)
    right["motion"] = all(
        found is not None and (found.motion == item.motion or len(frames) == 1) for found, item in pairs
    )
    right["all"] = all(right.values())
    errors, speeds = [], []
    for (found, item), track in zip(pairs, tracks(scene), strict=True):
        if found is not None and found.motion == item.motion in DIRECTIONS and len(frames) > 1:
            low, high = speed_range(track, item, len(frames), RADII[len(scene.items)])
            errors.append(max(low - found.speed, found.speed - high, 0) / (low if found.speed < low else high))
            speeds.append(found.speed)
    jitter = max((found.jitter for found in seen.objects), default=None)
    return Score(right, _mean(errors), _mean(speeds), seen.flicker, jitter, seen)


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def speed_range(track: Track, item: Item, frames: int, radii: tuple[float, float]) -> tuple[float, float]:
    """Return the slowest and fastest speed that an adverb may mean on a track.

    The object must stay inside. So the largest object need not be faster than its room allows, and the smallest cannot
    be.
    """
    low, high = SPEEDS[item.speed]

    def reach(radius: float) -> float:
        axes = zip(track, DIRECTIONS[item.motion], strict=True)
        return min((end - begin - 2 * radius) / abs(part) for (begin, end), part in axes if part) / (frames - 1)

    return min(low, reach(1.05 * radii[1])), min(high, reach(radii[0] / 2))


@dataclass(frozen=True)
class Question:
    """One prompt of an evaluation."""

    group: str
    scene: Scene
    seed: int

    @property
    def prompt(self) -> str:
        """Plain caption of the scene."""
        return describe(self.scene)


def questions(counts: dict[str, int], seed: int = 0) -> list[Question]:
    """Return prompts in groups: "plain", "held out", "other" motions and "pairs" of objects.

    Colours, shapes, motions, speeds and backgrounds alternate, so that each occurs equally often.

    Args:
        counts: number of prompts by group.
    """
    random = torch.Generator().manual_seed(seed)
    others = tuple(motion for motion in MOTIONS if motion not in STRAIGHT)
    pools = {
        "plain": combinations(STRAIGHT),
        "held out": combinations(STRAIGHT, True),
        "other": combinations(others),
        "pairs": combinations(STRAIGHT),
    }
    asked: list[Question] = []
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
            background = "black" if index % 2 else free[(index // 2) % len(free)]
            asked.append(Question(group, Scene(tuple(items), background), 10_000 + len(asked)))
    return asked


def _shuffled(pool: list[tuple[str, str, str]], random: torch.Generator, least: int) -> list[tuple[str, str, str]]:
    out: list[tuple[str, str, str]] = []
    while len(out) < least + 8:
        out += [pool[i] for i in torch.randperm(len(pool), generator=random).tolist()]
    return out
