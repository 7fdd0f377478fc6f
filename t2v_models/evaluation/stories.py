"""Evaluate stories of several scenes: whether each scene is right, and whether its object moves on from its place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from ..shapes.captions import describe
from ..shapes.world import OBJECT_COLOURS, SHAPES, STRAIGHT, Item, Scene, held_out
from .analysis import FOREGROUND, background_colour, centres_of
from .scoring import score

MARGIN = 2
"""Frames at both ends of a scene that belong to the change of scenes and are not scored."""


@dataclass(frozen=True)
class Tale:
    """A story with known right answers: one object, whose colour and direction change with the scene."""

    scenes: tuple[Scene, ...]
    length: int
    """Frames of a scene."""
    seed: int

    @property
    def text(self) -> str:
        """The story, a line for each scene."""
        spans = (f"{i * self.length}-{(i + 1) * self.length}f" for i in range(len(self.scenes)))
        return "\n".join(f"{span}: {describe(scene)}" for span, scene in zip(spans, self.scenes, strict=True))


@dataclass(frozen=True)
class Verdict:
    """The evaluation of a tale's video."""

    tale: Tale
    right: tuple[dict[str, bool], ...]
    """Which criteria each scene meets."""
    border: float
    """The largest step of the object's centre between two scenes, or one frame before or after. The unit is the median
    step of the story, but at least a pixel."""

    @property
    def whole(self) -> bool:
        """Whether every scene meets all criteria."""
        return all(scene["all"] for scene in self.right)


def tales(count: int, *, scenes: int = 4, length: int = 16, seed: int = 0) -> list[Tale]:
    """Return stories whose neighbouring scenes differ in colour and motion; the shape stays."""
    random = torch.Generator().manual_seed(seed)

    def pick(choices: Iterable[str]) -> str:
        values = list(choices)
        return values[int(torch.randint(len(values), (), generator=random))]

    out = []
    for number in range(count):
        shape = SHAPES[number % len(SHAPES)]
        items: list[Item] = []
        while len(items) < scenes:
            colour, motion = pick(OBJECT_COLOURS), pick(STRAIGHT)
            repeated = items and (colour == items[-1].colour or motion == items[-1].motion)
            if not repeated and not held_out(colour, shape, motion):
                items.append(Item(colour, shape, motion))
        out.append(Tale(tuple(Scene((item,)) for item in items), length, 20_000 + number))
    return out


def judge(tale: Tale, frames: torch.Tensor) -> Verdict:
    """Evaluate the frames (t, h, w, 3) of a tale, in 0..1."""
    parts = frames.split(tale.length)
    right = tuple(
        score(scene, part[MARGIN : len(part) - MARGIN]).right for scene, part in zip(tale.scenes, parts, strict=True)
    )
    step = centres(frames).diff(dim=0).norm(dim=-1)
    normal = max(float(step.median()), 1 / frames.shape[2])
    borders = [step[max(0, at - 2) : at + 1].max() for at in range(tale.length, len(frames), tale.length)]
    return Verdict(tale, right, float(torch.stack(borders).max()) / normal if borders else 0.0)


def centres(frames: torch.Tensor) -> torch.Tensor:
    """Return the mean place (t, 2) of all that is not background, x and y in frame widths."""
    distance = (frames - background_colour(frames)).square().sum(-1).sqrt()  # faster than norm over three values
    return centres_of(torch.where(distance > FOREGROUND, distance, 0))


def flicker(frames: torch.Tensor) -> torch.Tensor:
    """Return the mean change (t - 1,) of a pixel from frame to frame, 0..255."""
    return (frames[1:] - frames[:-1]).abs().mean(dim=(1, 2, 3)) * 255


def table(given: list[Verdict]) -> str:
    """Return lines of text: the shares of right scenes and stories, and the steps between scenes."""
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
