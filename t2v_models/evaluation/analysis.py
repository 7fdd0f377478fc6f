"""Look at a clip of the built-in model's world and say what is in it, by plain image analysis.

Nothing is learned: pixels are sorted by colour, objects are what is left when the edges are taken off, shapes are
compared with drawn ones, and a motion is what the centre, the area and the outline do over time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch.nn import functional as F

from ..shapes.render import signed_distance
from ..shapes.world import COLOURS, DIRECTIONS, SHAPES

FOREGROUND = 0.22
"""Distance in RGB (0..1 a channel) from the background's colour at which a pixel belongs to something."""

SMALLEST = 0.0025
"""Share of the frame that an object covers at least; less is dirt."""

ANGLES = 16
"""Turns at which each shape is tried."""

JUMP = 3
"""Steps of the usual length, at least a pixel, that an object may take at once; what takes more has jumped."""


@dataclass(frozen=True)
class Found:
    """One object: its colour, shape and motion by name, and what they were read from. Lengths in frame widths."""

    colour: str
    shape: str
    motion: str
    speed: float
    """Frame widths per frame along the line of its motion."""
    track: torch.Tensor
    """(t, 2) centres; the last known one where a frame does not show it."""
    radius: torch.Tensor
    """(t,) radius of a circle of the same area."""
    jitter: float
    """Root mean square of the second difference of the centre."""


@dataclass(frozen=True)
class Measured:
    """What a clip shows."""

    background: str
    objects: tuple[Found, ...]
    counts: tuple[int, ...]
    """Number of objects in each frame."""
    flicker: float | None
    """Mean change of a background pixel from frame to frame, 0..255; None where no pixel is one all the time."""


def measure(frames: torch.Tensor) -> Measured:
    """frames: (t, h, w, 3) in 0..1."""
    palette = torch.tensor(list(COLOURS.values())) / 255
    names = list(COLOURS)
    ground = ground_of(frames)
    background = names[int((palette - ground).norm(dim=-1).argmin())]
    distance = (frames - ground).square().sum(-1).sqrt()
    still = F.max_pool2d((distance > FOREGROUND / 2).float()[:, None], 5, 1, 2)[:, 0].amax(0) == 0
    flicker = None
    if len(frames) > 1 and still.any():
        flicker = float((frames[1:] - frames[:-1]).abs().mean(-1)[:, still].mean()) * 255

    classes = (frames[..., None, :] - palette).square().sum(-1).argmin(-1)
    classes = torch.where(distance > FOREGROUND, classes, -1)
    sizes = {}
    for index, name in enumerate(names):
        core = -F.max_pool2d(-(classes == index).float()[:, None], 3, 1, 1)
        sizes[name] = core.sum(dim=(1, 2, 3)).median().item() / core[0].numel()
    colours = [name for name in names if sizes[name] > SMALLEST / 2]
    colours.sort(key=lambda name: -sizes[name])
    covers = _covers(frames, ground, [palette[names.index(name)] for name in colours], classes, names, colours)
    objects = tuple(_describe(name, cover) for name, cover in zip(colours, covers, strict=True))
    counts = _pieces(distance > FOREGROUND)  # of any colour: a tinge makes no second object, a guest does
    for_each = [(cover.mean(dim=(1, 2)) > SMALLEST).int() for cover in covers]
    counts = torch.maximum(counts, torch.stack(for_each).sum(0)) if covers else counts  # two that touch are two
    return Measured(background, objects, tuple(counts.tolist()), flicker)


def ground_of(frames: torch.Tensor) -> torch.Tensor:
    """(3,) the colour of the background of frames (t, h, w, 3): what is seen most along their edges."""
    edges = torch.cat([frames[:, :2].flatten(0, 2), frames[:, -2:].flatten(0, 2), frames[:, :, :2].flatten(0, 2)])
    return edges.median(dim=0).values


def centres_of(cover: torch.Tensor) -> torch.Tensor:
    """(t, 2) x and y, in frame widths, of the middle of what covers the frames, (t, h, w)."""
    _, h, w = cover.shape
    x, y = (torch.arange(w) + 0.5) / w, (torch.arange(h) + 0.5) / w
    weight = cover.sum(dim=(1, 2)).clamp(min=1e-6)
    return torch.stack([(cover.sum(1) * x).sum(-1) / weight, (cover.sum(2) * y).sum(-1) / weight], -1)


def _covers(
    frames: torch.Tensor,
    ground: torch.Tensor,
    nominal: list[torch.Tensor],
    classes: torch.Tensor,
    names: list[str],
    colours: list[str],
) -> list[torch.Tensor]:
    """(t, h, w) per object: how much of each pixel it covers, from how far the pixel is on the way to its colour."""
    actual = []
    for name, colour in zip(colours, nominal, strict=True):
        inside = frames[classes == names.index(name)]
        actual.append(inside.median(dim=0).values if len(inside) else colour)
    covers = []
    for index, colour in enumerate(actual):
        way = colour - ground
        cover = ((frames - ground) @ way / way.square().sum()).clamp(0, 1)
        if len(actual) > 1:  # a pixel belongs to the object whose core is nearest
            core = torch.stack([(classes == names.index(name)).float() for name in colours], 1)
            near = F.avg_pool2d(core, 5, 1, 2)
            cover = cover * (near.argmax(1) == index) * (near[:, index] > 0)
        covers.append(torch.where(cover > 0.15, cover, 0))
    return covers


def _pieces(covered: torch.Tensor) -> torch.Tensor:
    """(t,) number of separate pieces in each frame of (t, h, w): labels spread until nothing changes."""
    masks = covered.float()[:, None]
    t, _, h, w = masks.shape
    labels = torch.arange(1, h * w + 1, dtype=torch.float32).view(1, 1, h, w) * masks
    for _ in range(2 * max(h, w)):
        spread = F.max_pool2d(labels, 3, 1, 1) * masks
        if torch.equal(spread, labels):
            break
        labels = spread
    counts = []
    for frame in labels.view(t, -1):
        _, sizes = frame[frame > 0].unique(return_counts=True)
        counts.append(int((sizes > SMALLEST * h * w).sum()))
    return torch.tensor(counts)


def _describe(colour: str, cover: torch.Tensor) -> Found:
    t, h, w = cover.shape
    area = cover.sum(dim=(1, 2))
    seen = area > SMALLEST * h * w
    track = centres_of(cover)
    for frame in range(1, t):
        if not seen[frame]:
            track[frame] = track[frame - 1]
    radius = (area / torch.pi).sqrt() / w
    shape, turns = _shape(cover, track, radius, seen)
    motion, speed = _motion(track, radius, turns, 1 / w)
    jitter = float((track[2:] - 2 * track[1:-1] + track[:-2]).square().sum(-1).mean().sqrt()) if t > 2 else 0.0
    return Found(colour, shape, motion, speed, track, radius, jitter)


def _shape(
    cover: torch.Tensor, track: torch.Tensor, radius: torch.Tensor, seen: torch.Tensor
) -> tuple[str, torch.Tensor]:
    """The drawn shape that fits best over the frames, each turned as fits that frame, and those turns (t,).

    An upright shape that fits nearly as well as a turned one is preferred.
    """
    t, _, w = cover.shape
    gy, gx = _grid()
    sample = torch.stack([gx, gy], -1)[None] * radius[:, None, None, None].clamp(min=1e-3) + track[:, None, None]
    height = cover.shape[1] / w
    sample = sample / torch.tensor([1.0, height]) * 2 - 1
    seen_as = F.grid_sample(cover[:, None], sample, align_corners=False, padding_mode="border")[:, 0]
    softness = 1 / (radius.clamp(min=1e-3) * w)  # one pixel, in radii
    errors = torch.empty(len(SHAPES), ANGLES, t)
    for index in range(len(SHAPES)):
        for turn, distance in enumerate(_drawn(index)):
            drawn = (0.5 - distance / softness[:, None, None]).clamp(0, 1)
            errors[index, turn] = (drawn - seen_as).square().mean(dim=(1, 2))
    errors = torch.where(seen, errors, 0)
    upright = errors[:, 0].mean(-1)
    turned = errors.amin(1).mean(-1) + 0.004
    index = int(torch.minimum(upright, turned).argmin())
    turns = errors[index].argmin(0)
    return SHAPES[index], turns if turned[index] < upright[index] else torch.zeros_like(turns)


def _grid() -> tuple[torch.Tensor, torch.Tensor]:
    """(33, 33) y and x around an object, in radii."""
    axis = torch.linspace(-2, 2, 33)
    gy, gx = torch.meshgrid(axis, axis, indexing="ij")
    return gy, gx


@cache
def _drawn(shape: int) -> torch.Tensor:
    """(ANGLES, 33, 33) the signed distance from a shape at every turn that looks different, in radii."""
    gy, gx = _grid()
    symmetry = (1, 4, 3, 5)[shape]
    turns = []
    for turn in range(ANGLES):
        angle = torch.tensor(2 * torch.pi * turn / ANGLES / symmetry)
        px, py = gx * angle.cos() + gy * angle.sin(), gy * angle.cos() - gx * angle.sin()
        turns.append(signed_distance(torch.tensor([shape]), px[None], py[None], torch.tensor([_unit(shape)]))[0])
    return torch.stack(turns)


@cache
def _unit(shape: int) -> float:
    """The size at which a shape has the area of a circle of radius 1."""
    axis = (torch.arange(256) + 0.5) / 64 - 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    inside = signed_distance(torch.tensor([shape]), x[None], y[None], torch.tensor([1.0])) < 0
    return float((torch.pi / (inside.sum() / 64**2)).sqrt())


def _motion(track: torch.Tensor, radius: torch.Tensor, turns: torch.Tensor, pixel: float) -> tuple[str, float]:
    """The name of a motion, "jumps" for one that no word means, and its speed; of a single frame, "still"."""
    t = len(track)
    if t < 2:
        return "still", 0.0
    time = torch.arange(t, dtype=torch.float32) - (t - 1) / 2
    slope = (time[:, None] * track).sum(0) / time.square().sum()
    speed = float(slope.norm())
    way = slope * (t - 1)
    rest = track - track.mean(0) - time[:, None] * slope
    ends = max(1, t // 5)
    growth = float(radius[-ends:].mean() / radius[:ends].mean().clamp(min=1e-3))
    if growth > 1.3 or growth < 0.77:
        return ("grows" if growth > 1 else "shrinks"), speed
    if float(rest[:, 1].amax() - rest[:, 1].amin()) > 0.1 and abs(float(way[0])) < 0.08:
        return "bounces", speed
    steps = track.diff(dim=0).norm(dim=-1)
    if float(steps.max()) > JUMP * max(float(steps.median()), pixel):
        return "jumps", speed
    if float(way.norm()) < 0.024:
        turned = (turns.diff() + ANGLES // 2) % ANGLES - ANGLES // 2  # the shorter way round; a spin keeps its sense
        return ("spins" if abs(float(turned.sign().float().mean())) > 0.4 else "still"), speed
    towards = torch.tensor(list(DIRECTIONS.values())) @ (slope / slope.norm())
    return list(DIRECTIONS)[int(towards.argmax())], speed
