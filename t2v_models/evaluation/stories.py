"""Stories of several scenes: is each scene what its line says, and does its object go on from where it was?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from ..shapes.captions import describe
from ..shapes.world import OBJECT_COLOURS, SHAPES, STRAIGHT, Item, Scene, held_out
from .analysis import FOREGROUND, centres_of, ground_of
from .scoring import score

MARGIN = 2
"""Frames at both ends of a scene that belong to the change from one to the next and are not judged."""


@dataclass(frozen=True)
class Tale:
    """A story with known right answers: one object that changes its colour and its way from scene to scene."""

    scenes: tuple[Scene, ...]
    length: int
    """Frames of a scene."""
    seed: int

    @property
    def text(self) -> str:
        """The story, in lines."""
        spans = (f"{i * self.length}-{(i + 1) * self.length}f" for i in range(len(self.scenes)))
        return "\n".join(f"{span}: {describe(scene)}" for span, scene in zip(spans, self.scenes, strict=True))


@dataclass(frozen=True)
class Verdict:
    """What became of a tale."""

    tale: Tale
    right: tuple[dict[str, bool], ...]
    """Right or wrong by criterion, for each scene."""
    border: float
    """The largest step of the object's centre from the last frame of a scene to the next one's first, or one frame
    before or after, in normal steps: the median step of the story, but no less than a pixel."""

    @property
    def whole(self) -> bool:
        """Every scene is right in everything."""
        return all(scene["all"] for scene in self.right)


def tales(count: int, *, scenes: int = 4, length: int = 16, seed: int = 0) -> list[Tale]:
    """Stories whose neighbouring scenes differ in colour and in motion; the shape stays."""
    random = torch.Generator().manual_seed(seed)

    def pick(choices: Iterable[str]) -> str:
        known = list(choices)
        return known[int(torch.randint(len(known), (), generator=random))]

    told = []
    for number in range(count):
        shape = SHAPES[number % len(SHAPES)]
        items: list[Item] = []
        while len(items) < scenes:
            colour, motion = pick(OBJECT_COLOURS), pick(STRAIGHT)
            again = items and (colour == items[-1].colour or motion == items[-1].motion)
            if not again and not held_out(colour, shape, motion):
                items.append(Item(colour, shape, motion))
        told.append(Tale(tuple(Scene((item,)) for item in items), length, 20_000 + number))
    return told


def judge(tale: Tale, frames: torch.Tensor) -> Verdict:
    """frames: (t, h, w, 3) in 0..1, one scene's after the other's."""
    parts = frames.split(tale.length)
    right = tuple(
        score(scene, part[MARGIN : len(part) - MARGIN]).right for scene, part in zip(tale.scenes, parts, strict=True)
    )
    step = centres(frames).diff(dim=0).norm(dim=-1)
    normal = max(float(step.median()), 1 / frames.shape[2])
    borders = [step[max(0, at - 2) : at + 1].max() for at in range(tale.length, len(frames), tale.length)]
    return Verdict(tale, right, float(torch.stack(borders).max()) / normal if borders else 0.0)


def centres(frames: torch.Tensor) -> torch.Tensor:
    """(t, 2) where in each frame what is not background lies on the mean, x and y in frame widths."""
    distance = (frames - ground_of(frames)).square().sum(-1).sqrt()  # faster than norm over three values
    return centres_of(torch.where(distance > FOREGROUND, distance, 0))


def flicker(frames: torch.Tensor) -> torch.Tensor:
    """(t - 1,) the flicker curve: mean change of a pixel from frame to frame, 0..255."""
    return (frames[1:] - frames[:-1]).abs().mean(dim=(1, 2, 3)) * 255


def table(given: list[Verdict]) -> str:
    """A few lines: how many stories and scenes are right, and how the borders are."""
    scenes = [scene for verdict in given for scene in verdict.right]
    lines = [
        f"{name}: {100 * sum(scene[name] for scene in scenes) / len(scenes):.1f} % of {len(scenes)} scenes"
        for name in ("colour", "shape", "motion", "background", "all")
    ]
    whole = 100 * sum(verdict.whole for verdict in given) / len(given)
    smooth = 100 * sum(verdict.border <= 2 for verdict in given) / len(given)
    lines.append(f"every scene right: {whole:.1f} % of {len(given)} stories")
    lines.append(
        f"borders: {smooth:.1f} % of the stories step at most 2 normal steps; the largest is "
        f"{max(verdict.border for verdict in given):.2f}"
    )
    return "\n".join(lines)
