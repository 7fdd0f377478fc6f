"""The world of the built-in model: coloured shapes that move over a plain background.

A scene is sampled from a seed, and its attributes are the right answers for the evaluation. Lengths are in frame widths
and speeds in frame widths per frame, so a scene can be drawn at any size; y points down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

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
"""Smallest and largest radius of a spinning object: on 8x8 latents a smaller one hardly changes as it turns."""

SPIN = 0.25
"""Radians per frame of a spinning object. The speed is fixed: where speeds differ by even a tenth, the shapes of later
frames average to a circle, and the model then draws circles."""

SMALL, LARGE = (0.07, 0.1), (0.24, 0.32)
"""Ranges of the smaller and the larger radius of an object that grows or shrinks. A large object fits in few places, so
the model sees growth before it knows the place; with a larger radius under 0.22, it drew one size after 4,000 steps."""

HARDER = ("star", "spins")
"""Shapes and motions that are sampled twice as often as others, because they are learned last."""

NARROW = 0.38
"""Width of an object's track if it moves up or down and the other object moves sideways."""

LARGEST_ALONE = 0.36
"""Largest radius in a single frame: a large object fits in few places, so its colour shows through any noise."""


def held_out(colour: str, shape: str, motion: str) -> bool:
    """Return whether training never shows this combination, as for a fifth of all.

    Training shows every pair of attributes: red stars, and stars that move left, but never a red star that moves left.
    """
    return (OBJECT_COLOURS.index(colour) + 2 * SHAPES.index(shape) + 3 * MOTIONS.index(motion)) % 5 == 2


def combinations(motions: tuple[str, ...], held: bool | None = False) -> list[tuple[str, str, str]]:
    """Return all (colour, shape, motion) with these motions.

    Args:
        held: False for those that training shows, True for the held-out ones, None for both.
    """
    everything = ((c, s, m) for c in OBJECT_COLOURS for s in SHAPES for m in motions if (s, m) != ("circle", "spins"))
    return [combination for combination in everything if held is None or held_out(*combination) == held]


@dataclass(frozen=True)
class Item:
    """The attributes of one object that a caption can name."""

    colour: str
    shape: str
    motion: str
    speed: str = ""


@dataclass(frozen=True)
class Scene:
    """One or two objects on a background."""

    items: tuple[Item, ...]
    background: str = "black"


@dataclass
class Trajectory:
    """Place, size and rotation of one object in every frame."""

    position: torch.Tensor
    """(t, 2) x and y of the centre."""
    radius: torch.Tensor
    """(t,)."""
    angle: torch.Tensor
    """(t,) in radians, clockwise."""


@dataclass(frozen=True)
class World:
    """The distribution of scenes; its shares need not sum to 1."""

    straight: float = 1.0
    """Share of scenes with one object that moves right, left, up or down."""

    diagonal: float = 0.0
    """Share with one object that moves diagonally."""

    other: float = 0.0
    """Share with one object and a bounce, a spin, a change of size or no motion."""

    spins: float = 0.0
    """Share with one object that spins, besides those in `other`: spinning is learned last."""

    pairs: float = 0.0
    """Share with two objects that move straight."""

    backgrounds: float = 0.6
    """Share of scenes whose background colour is drawn from `BACKGROUNDS`; the others are black."""

    def sample(self, random: torch.Generator) -> Scene:
        """Return a random scene without held-out combinations."""
        others = tuple(motion for motion in MOTIONS if motion not in DIRECTIONS)
        groups = ((STRAIGHT, 1), (DIAGONAL, 1), (others, 1), (("spins",), 1), (STRAIGHT, 2))
        shares = torch.tensor([self.straight, self.diagonal, self.other, self.spins, self.pairs])
        motions, count = groups[int(torch.multinomial(shares, 1, generator=random))]
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


@cache
def _combinations(motions: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """The trained combinations, the harder ones twice."""
    trained = combinations(motions)
    return trained + [combination for combination in trained if set(HARDER) & set(combination)]


def _index(count: int, random: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=random))


Track = tuple[tuple[float, float], tuple[float, float]]
"""The part of the frame that an object stays in: (begin, end) in x and in y."""

WHOLE: Track = ((0.0, 1.0), (0.0, 1.0))


def tracks(scene: Scene) -> list[Track]:
    """Return the part of the frame for each object of a scene.

    Of two objects, the first is on the left, or above if both move sideways. So the caption determines the layout, and
    the objects never meet. An object that moves sideways beside one that moves up or down has more of the width.
    """
    if len(scene.items) == 1:
        return [WHOLE]
    sideways = [bool(DIRECTIONS[item.motion][0]) for item in scene.items]
    if all(sideways):
        return [((0.0, 1.0), (0.0, 0.5)), ((0.0, 1.0), (0.5, 1.0))]
    border = 0.5 if not any(sideways) else 1 - NARROW if sideways[0] else NARROW
    return [((0.0, border), (0.0, 1.0)), ((border, 1.0), (0.0, 1.0))]


def place(scene: Scene, frames: int, random: torch.Generator) -> list[Trajectory]:
    """Return a random trajectory for each object: its size, starting point and exact speed.

    A trajectory lies inside the object's track, and all that do are equally likely: an object that moves right often
    starts on the left.
    """
    radii = RADII[len(scene.items)]
    return [_place(item, frames, radii, random, track) for item, track in zip(scene.items, tracks(scene), strict=True)]


def _place(item: Item, frames: int, radii: tuple[float, float], random: torch.Generator, track: Track) -> Trajectory:
    begin, end = torch.tensor(track).unbind(1)  # (2,) x and y
    if frames == 1 and radii == RADII[1]:
        radii = (radii[0], LARGEST_ALONE)
    elif item.motion == "spins":
        radii = SPINNING
    radius = torch.full((frames,), _uniform(*radii, random))
    offset, angle = torch.zeros(frames, 2), torch.zeros(frames)
    if item.motion in DIRECTIONS:
        offset = _straight(item, frames, end - begin - 2.1 * radius[0], random)
    elif item.motion == "bounces":
        offset[:, 1] = _bouncing(frames, random)
    elif item.motion == "spins":
        # clockwise from upright, as all other objects stand, so that the caption determines every frame
        angle = _time(frames) * SPIN if frames > 1 else torch.full((1,), _uniform(0, 2 * math.pi, random))
    elif item.motion in ("grows", "shrinks"):
        radius = _changing_radius(item.motion, frames, random)
    margin = 1.04 * radius.max()
    lowest, highest = begin + margin - offset.amin(0), end - margin - offset.amax(0)
    start = lowest + (highest - lowest).clamp(min=0) * torch.rand(2, generator=random)
    return Trajectory(start + offset, radius, angle)


def _straight(item: Item, frames: int, room: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """(t, 2) offsets at a random speed of its adverb that fits into `room`, (2,) of x and y."""
    slowest, fastest = SPEEDS[item.speed]
    direction = torch.tensor(DIRECTIONS[item.motion])
    fits = float((room / direction.abs().clamp(min=1e-3)).min()) / max(frames - 1, 1)
    speed = _uniform(min(slowest, fits), min(fastest, fits), random)
    return _time(frames)[:, None] * direction * speed


def _bouncing(frames: int, random: torch.Generator) -> torch.Tensor:
    """(t,) vertical offsets."""
    height, period, phase = _uniform(0.2, 0.4, random), _uniform(6, 9, random), _uniform(0, 1, random)
    return -height * torch.sin(torch.pi * (_time(frames) / period + phase)).abs()


def _changing_radius(motion: str, frames: int, random: torch.Generator) -> torch.Tensor:
    """(t,) radii; of a single frame, any size."""
    small, large = _uniform(*SMALL, random), _uniform(*LARGE, random)
    if frames == 1:
        return torch.full((1,), _uniform(SMALL[0], LARGE[1], random))
    radius = small + (large - small) * _time(frames) / (frames - 1)
    return radius if motion == "grows" else radius.flip(0)


def _time(frames: int) -> torch.Tensor:
    return torch.arange(frames, dtype=torch.float32)


def _uniform(low: float, high: float, random: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=random))
