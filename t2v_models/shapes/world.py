"""The world of the built-in model: coloured shapes that move over a plain background.

A scene is drawn from a seed and knows the right answer to every question the evaluation asks. Lengths are in frame
widths and speeds in frame widths per frame, so the same scene can be drawn at any size; y points down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (230, 25, 30),
    "orange": (255, 140, 0),
    "yellow": (255, 230, 30),
    "green": (25, 165, 50),
    "cyan": (40, 220, 235),
    "blue": (30, 60, 230),
    "purple": (150, 40, 200),
    "white": (250, 250, 250),
    "black": (10, 10, 12),
    "gray": (120, 120, 124),
}
"""Every colour by name, as 8-bit RGB."""

OBJECT_COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white")
BACKGROUNDS = ("black", "gray", "white", "red", "yellow", "green", "blue", "purple")
SHAPES = ("circle", "square", "triangle", "star")
DIRECTIONS: dict[str, tuple[float, float]] = {
    "right": (1.0, 0.0),
    "left": (-1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
    "up right": (0.7071, -0.7071),
    "up left": (-0.7071, -0.7071),
    "down right": (0.7071, 0.7071),
    "down left": (-0.7071, 0.7071),
}
MOTIONS = (*DIRECTIONS, "bounces", "spins", "grows", "shrinks", "still")
STRAIGHT = ("right", "left", "up", "down")
DIAGONAL = tuple(name for name in DIRECTIONS if name not in STRAIGHT)

SPEEDS: dict[str, tuple[float, float]] = {"slowly": (0.004, 0.011), "": (0.0125, 0.031), "fast": (0.034, 0.1)}
"""Frame widths per frame by adverb. Over 16 frames: 4 to 11 pixels of 64, 12 to 30, and 33 to as much as fits."""

RADII = {1: (0.13, 0.2), 2: (0.12, 0.16)}
"""Smallest and largest radius of an object by the number of objects in the scene."""

SPINNING = (0.2, 0.3)
"""Radii of what spins: on a grid of 8x8 latents the turn of a smaller one hardly shows."""

TURN = 0.25
"""Radians per frame of what spins: one pace. A shape looks the same again after a few frames, so where turns differ, even
by a tenth, their average from pure noise is a circle in the last frames, and circles are what is drawn then."""

SMALL, LARGE = (0.07, 0.1), (0.24, 0.32)
"""Radii that an object grows or shrinks from and to. A large object can be in few places only, so that growth shows
before it is known where; to less than 0.22 it was drawn at one size after 4,000 steps."""

HARDER = ("star", "spins")
"""Drawn twice as often as others, since they are learned last."""

NARROW = 0.38
"""Width of the part of the frame that one of two objects has if it moves up or down and the other one sideways."""

LARGEST_ALONE = 0.36
"""Largest radius in a single frame: a large object can be in few places, so its colour shows through any noise."""


def held_out(colour: str, shape: str, motion: str) -> bool:
    """True for the fifth of the combinations that training never shows.

    Every pair of attributes still appears: the model has seen red stars and stars that move left, never a red star
    that does.
    """
    return (OBJECT_COLOURS.index(colour) + 2 * SHAPES.index(shape) + 3 * MOTIONS.index(motion)) % 5 == 2


def combinations(motions: tuple[str, ...], held: bool | None = False) -> list[tuple[str, str, str]]:
    """All (colour, shape, motion) of a world: the trained ones, the held-out ones (True) or both (None)."""
    everything = ((c, s, m) for c in OBJECT_COLOURS for s in SHAPES for m in motions if (s, m) != ("circle", "spins"))
    return [combination for combination in everything if held is None or held_out(*combination) == held]


@dataclass(frozen=True)
class Item:
    """One object: what a caption can say about it, and nothing else."""

    colour: str
    shape: str
    motion: str
    speed: str = ""


@dataclass(frozen=True)
class Scene:
    """What a clip shows: one or two objects on a background."""

    items: tuple[Item, ...]
    background: str = "black"


@dataclass
class Path:
    """Where one object is in every frame. position: (t, 2), radius: (t,), angle in radians: (t,)."""

    position: torch.Tensor
    radius: torch.Tensor
    angle: torch.Tensor


@dataclass(frozen=True)
class World:
    """Which scenes there are, and how often: the three stages of the built-in model's world."""

    straight: float = 1.0
    """Share of scenes with one object that moves right, left, up or down."""

    diagonal: float = 0.0
    """Share with one object that moves diagonally."""

    other: float = 0.0
    """Share with one object and a bounce, a spin, a change of size or no motion."""

    spins: float = 0.0
    """Share with one object that spins, besides those among the others: what turns is learned last of all."""

    pairs: float = 0.0
    """Share with two objects that move straight."""

    backgrounds: float = 0.6
    """Share of scenes whose background is any colour but the usual black."""

    def sample(self, random: torch.Generator) -> Scene:
        """One scene, never of a held-out combination."""
        others = tuple(motion for motion in MOTIONS if motion not in DIRECTIONS)
        kinds = ((STRAIGHT, 1), (DIAGONAL, 1), (others, 1), (("spins",), 1), (STRAIGHT, 2))
        shares = torch.tensor([self.straight, self.diagonal, self.other, self.spins, self.pairs])
        motions, count = kinds[int(torch.multinomial(shares, 1, generator=random))]
        choices = _combinations(motions)
        items: list[Item] = []
        while len(items) < count:
            colour, shape, motion = choices[_index(len(choices), random)]
            if all(colour != item.colour for item in items):
                speed = ("slowly", "", "fast")[
                    int(torch.multinomial(torch.tensor([0.25, 0.5, 0.25]), 1, generator=random))
                ]
                items.append(Item(colour, shape, motion, speed if motion in DIRECTIONS else ""))
        background = "black"
        if float(torch.rand((), generator=random)) < self.backgrounds:
            free = [name for name in BACKGROUNDS if all(name != item.colour for item in items)]
            background = free[_index(len(free), random)]
        return Scene(tuple(items), background)


_CACHE: dict[tuple[str, ...], list[tuple[str, str, str]]] = {}


def _combinations(motions: tuple[str, ...]) -> list[tuple[str, str, str]]:
    if motions not in _CACHE:
        known = combinations(motions)
        _CACHE[motions] = known + [combination for combination in known if set(HARDER) & set(combination)]
    return _CACHE[motions]


def _index(count: int, random: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=random))


Lane = tuple[tuple[float, float], tuple[float, float]]
"""The part of the frame that an object keeps to: from where to where, in x and in y."""

WHOLE: Lane = ((0.0, 1.0), (0.0, 1.0))


def lanes(scene: Scene) -> list[Lane]:
    """The part of the frame for each object of a scene.

    Of two, the one named first is on the left; or above, where both move sideways. So nothing about where to draw which
    is left to chance, and they never meet. Who moves sideways beside one that moves up or down has more of the width.
    """
    if len(scene.items) == 1:
        return [WHOLE]
    sideways = [bool(DIRECTIONS[item.motion][0]) for item in scene.items]
    if all(sideways):
        return [((0.0, 1.0), (0.0, 0.5)), ((0.0, 1.0), (0.5, 1.0))]
    border = 0.5 if not any(sideways) else 1 - NARROW if sideways[0] else NARROW
    return [((0.0, border), (0.0, 1.0)), ((border, 1.0), (0.0, 1.0))]


def place(scene: Scene, frames: int, random: torch.Generator) -> list[Path]:
    """Draw sizes, starting points and exact speeds for a scene: one Path per object.

    An object's whole way lies inside its part of the frame, and every way that does is equally likely: one that moves
    right often starts on the left.
    """
    radii = RADII[len(scene.items)]
    return [_path(item, frames, radii, random, lane) for item, lane in zip(scene.items, lanes(scene), strict=True)]


def _path(item: Item, frames: int, radii: tuple[float, float], random: torch.Generator, lane: Lane = WHOLE) -> Path:
    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=random))

    begin, end = torch.tensor(lane).unbind(1)  # (2,) x and y
    time = torch.arange(frames, dtype=torch.float32)
    if frames == 1 and radii == RADII[1]:
        radii = (radii[0], LARGEST_ALONE)
    elif item.motion == "spins":
        radii = SPINNING
    radius = torch.full((frames,), uniform(*radii))
    angle = torch.zeros(frames)
    offset = torch.zeros(frames, 2)
    last = max(frames - 1, 1)
    if item.motion in DIRECTIONS:
        low, high = SPEEDS[item.speed]
        way = torch.tensor(DIRECTIONS[item.motion])
        fits = float(((end - begin - 2.1 * radius[0]) / way.abs().clamp(min=1e-3)).min()) / last
        speed = uniform(min(low, fits), min(high, fits))
        offset = time[:, None] * way * speed
    elif item.motion == "bounces":
        height, period, phase = uniform(0.2, 0.4), uniform(6, 9), uniform(0, 1)
        offset[:, 1] = -height * torch.sin(torch.pi * (time / period + phase)).abs()
    elif item.motion == "spins":
        # clockwise from upright, as everything else stands: nothing is left open that the text does not say
        angle = time * TURN if frames > 1 else torch.full((1,), uniform(0, 2 * math.pi))
    elif item.motion in ("grows", "shrinks"):
        small, large = uniform(*SMALL), uniform(*LARGE)
        radius = small + (large - small) * time / last
        radius = radius if item.motion == "grows" else radius.flip(0)
        if frames == 1:
            radius = torch.full((1,), uniform(SMALL[0], LARGE[1]))
    margin = 1.04 * radius.max()
    low, high = begin + margin - offset.amin(0), end - margin - offset.amax(0)
    start = low + (high - low).clamp(min=0) * torch.rand(2, generator=random)
    return Path(start + offset, radius, angle)
