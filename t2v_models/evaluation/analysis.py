"""Find the objects of a clip, with their shapes, colours and motions, by image analysis without learned models.

Pixels are sorted by colour, objects are what remains without the edges, shapes are compared with drawn ones, and motions
follow from centre, area and rotation over time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch.nn import functional as F

from ..shapes.render import signed_distance
from ..shapes.world import COLOURS, DIRECTIONS, SHAPES

FOREGROUND = 0.22
"""Distance in RGB (0..1 a channel) from the background's colour at which a pixel belongs to an object."""

SMALLEST = 0.0025
"""Smallest share of the frame that counts as an object."""

ANGLES = 16
"""Number of rotations that are compared for each shape."""

JUMP = 3
"""Longest step of an object between two frames, in median steps of at least a pixel; a longer one is a jump."""


@dataclass(frozen=True)
class Found:
    """One object: its attributes by name, and the measured values they follow from. Lengths are in frame widths."""

    colour: str
    shape: str
    motion: str
    speed: float
    """Frame widths per frame along the line of its motion."""
    centres: torch.Tensor
    """(t, 2); the last seen one in frames that do not show the object."""
    radius: torch.Tensor
    """(t,) radius of a circle of the same area."""
    jitter: float
    """Root mean square of the second difference of the centre."""


@dataclass(frozen=True)
class Measured:
    """Everything measured in a clip."""

    background: str
    objects: tuple[Found, ...]
    counts: tuple[int, ...]
    """Number of objects in each frame."""
    flicker: float | None
    """Mean change of a background pixel from frame to frame, 0..255; None if no pixel is background in all frames."""


def measure(frames: torch.Tensor) -> Measured:
    """Analyse frames (t, h, w, 3) in 0..1."""
    palette = torch.tensor(list(COLOURS.values())) / 255
    names = list(COLOURS)
    ground = background_colour(frames)
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
    counts = _pieces(distance > FOREGROUND)  # of any colour: a tint makes no second object
    visible = [(cover.mean(dim=(1, 2)) > SMALLEST).int() for cover in covers]
    counts = torch.maximum(counts, torch.stack(visible).sum(0)) if covers else counts  # two objects may touch
    return Measured(background, objects, tuple(counts.tolist()), flicker)


def background_colour(frames: torch.Tensor) -> torch.Tensor:
    """Return the colour (3,) of the background of frames (t, h, w, 3): the median along their edges."""
    edges = torch.cat([frames[:, :2].flatten(0, 2), frames[:, -2:].flatten(0, 2), frames[:, :, :2].flatten(0, 2)])
    return edges.median(dim=0).values


def centres_of(cover: torch.Tensor) -> torch.Tensor:
    """Return the centre (t, 2), x and y in frame widths, of the covered part of frames (t, h, w)."""
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
    """For each object, the share (t, h, w) of each pixel that it covers, from the pixel's mix of colours."""
    actual = []
    for name, colour in zip(colours, nominal, strict=True):
        inside = frames[classes == names.index(name)]
        actual.append(inside.median(dim=0).values if len(inside) else colour)
    covers = []
    for index, colour in enumerate(actual):
        contrast = colour - ground
        cover = ((frames - ground) @ contrast / contrast.square().sum()).clamp(0, 1)
        if len(actual) > 1:  # a pixel belongs to the object whose core is nearest
            core = torch.stack([(classes == names.index(name)).float() for name in colours], 1)
            near = F.avg_pool2d(core, 5, 1, 2)
            cover = cover * (near.argmax(1) == index) * (near[:, index] > 0)
        covers.append(torch.where(cover > 0.15, cover, 0))
    return covers


def _pieces(covered: torch.Tensor) -> torch.Tensor:
    """The number (t,) of separate pieces in each frame of (t, h, w); labels spread until none changes."""
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
    centres = centres_of(cover)
    for frame in range(1, t):
        if not seen[frame]:
            centres[frame] = centres[frame - 1]
    radius = (area / torch.pi).sqrt() / w
    shape, rotations = _shape(cover, centres, radius, seen)
    motion, speed = _motion(centres, radius, rotations, 1 / w)
    bends = centres[2:] - 2 * centres[1:-1] + centres[:-2]
    jitter = float(bends.square().sum(-1).mean().sqrt()) if t > 2 else 0.0
    return Found(colour, shape, motion, speed, centres, radius, jitter)


def _shape(
    cover: torch.Tensor, centres: torch.Tensor, radius: torch.Tensor, seen: torch.Tensor
) -> tuple[str, torch.Tensor]:
    """The drawn shape that fits best, and its rotation (t,) in each frame, as an index below `ANGLES`.

    An upright shape is preferred to a rotated one that fits only a little better.
    """
    t, _, w = cover.shape
    gy, gx = _grid()
    sample = torch.stack([gx, gy], -1)[None] * radius[:, None, None, None].clamp(min=1e-3) + centres[:, None, None]
    height = cover.shape[1] / w
    sample = sample / torch.tensor([1.0, height]) * 2 - 1
    seen_as = F.grid_sample(cover[:, None], sample, align_corners=False, padding_mode="border")[:, 0]
    softness = 1 / (radius.clamp(min=1e-3) * w)  # one pixel, in radii
    errors = torch.empty(len(SHAPES), ANGLES, t)
    for index in range(len(SHAPES)):
        for rotation, distance in enumerate(_drawn(index)):
            drawn = (0.5 - distance / softness[:, None, None]).clamp(0, 1)
            errors[index, rotation] = (drawn - seen_as).square().mean(dim=(1, 2))
    errors = torch.where(seen, errors, 0)
    upright = errors[:, 0].mean(-1)
    rotated = errors.amin(1).mean(-1) + 0.004
    index = int(torch.minimum(upright, rotated).argmin())
    rotations = errors[index].argmin(0)
    return SHAPES[index], rotations if rotated[index] < upright[index] else torch.zeros_like(rotations)


def _grid() -> tuple[torch.Tensor, torch.Tensor]:
    """y and x (33, 33) around an object, in radii."""
    axis = torch.linspace(-2, 2, 33)
    gy, gx = torch.meshgrid(axis, axis, indexing="ij")
    return gy, gx


@cache
def _drawn(shape: int) -> torch.Tensor:
    """Signed distances (ANGLES, 33, 33) from a shape at every rotation that looks different, in radii."""
    gy, gx = _grid()
    symmetry = (1, 4, 3, 5)[shape]
    rotated = []
    for rotation in range(ANGLES):
        angle = torch.tensor(2 * torch.pi * rotation / ANGLES / symmetry)
        px, py = gx * angle.cos() + gy * angle.sin(), gy * angle.cos() - gx * angle.sin()
        rotated.append(signed_distance(torch.tensor([shape]), px[None], py[None], torch.tensor([_unit(shape)]))[0])
    return torch.stack(rotated)


@cache
def _unit(shape: int) -> float:
    """The radius at which a shape has the area of a circle of radius 1."""
    axis = (torch.arange(256) + 0.5) / 64 - 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    inside = signed_distance(torch.tensor([shape]), x[None], y[None], torch.tensor([1.0])) < 0
    return float((torch.pi / (inside.sum() / 64**2)).sqrt())


def _motion(centres: torch.Tensor, radius: torch.Tensor, rotations: torch.Tensor, pixel: float) -> tuple[str, float]:
    """The name of a motion and its speed; "jumps" if it is none of the world's, "still" for a single frame."""
    t = len(centres)
    if t < 2:
        return "still", 0.0
    time = torch.arange(t, dtype=torch.float32) - (t - 1) / 2
    slope = (time[:, None] * centres).sum(0) / time.square().sum()
    speed = float(slope.norm())
    distance = slope * (t - 1)
    rest = centres - centres.mean(0) - time[:, None] * slope
    ends = max(1, t // 5)
    growth = float(radius[-ends:].mean() / radius[:ends].mean().clamp(min=1e-3))
    if growth > 1.3 or growth < 0.77:
        return ("grows" if growth > 1 else "shrinks"), speed
    if float(rest[:, 1].amax() - rest[:, 1].amin()) > 0.1 and abs(float(distance[0])) < 0.08:
        return "bounces", speed
    steps = centres.diff(dim=0).norm(dim=-1)
    if float(steps.max()) > JUMP * max(float(steps.median()), pixel):
        return "jumps", speed
    if float(distance.norm()) < 0.024:
        steps = (rotations.diff() + ANGLES // 2) % ANGLES - ANGLES // 2  # by the shorter way; a spin keeps its sign
        return ("spins" if abs(float(steps.sign().float().mean())) > 0.4 else "still"), speed
    towards = torch.tensor(list(DIRECTIONS.values())) @ (slope / slope.norm())
    return list(DIRECTIONS)[int(towards.argmax())], speed
