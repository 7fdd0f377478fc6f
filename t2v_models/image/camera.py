"""A camera that moves over a still picture.

With FrameInit it moves the camera of any text-to-video model. Source: Ren et al. 2024, ConsistI2V (arXiv:2402.04324),
section 3.3, which pans and zooms by crops of whole pixels; here views lie between pixels, and may roll.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import T2VError


@dataclass(frozen=True)
class Camera:
    """A steady move from the first frame to the last."""

    pan: tuple[float, float] = (0.0, 0.0)
    """How far the camera moves to the right and down, in widths and heights of its view."""
    zoom: float = 1.0
    """How many times larger things are at the end than at the beginning; less than 1 zooms out."""
    roll: float = 0.0
    """Degrees by which the camera turns clockwise."""

    @property
    def still(self) -> bool:
        """Whether nothing moves."""
        return self == Camera()


CAMERAS: dict[str, Camera] = {
    "none": Camera(),
    "pan right": Camera(pan=(0.5, 0.0)),
    "pan left": Camera(pan=(-0.5, 0.0)),
    "pan up": Camera(pan=(0.0, -0.5)),
    "pan down": Camera(pan=(0.0, 0.5)),
    "zoom in": Camera(zoom=1.5),
    "zoom out": Camera(zoom=1 / 1.5),
    "roll right": Camera(roll=20.0),
    "roll left": Camera(roll=-20.0),
}
"""Usual moves by name."""


def camera(name: str) -> Camera:
    """The move of that name; T2VError where there is none."""
    if name not in CAMERAS:
        raise T2VError(f"Camera {name!r} is not known: choose one of {', '.join(CAMERAS)}.")
    return CAMERAS[name]


def camera_stills(images: Tensor, frames: int, move: Camera) -> Tensor:
    """Frames of a camera that moves over pictures; a camera that does not move repeats them exactly.

    The view is the largest that stays inside the picture in all frames: zooming in begins with the whole picture, zooming
    out ends with it, and a pan shows a part of it.

    Args:
        images: (b, h, w, 3), 0..1, of the video's size.
        frames: how many to make.
        move: the camera's.

    Returns:
        (b, frames, h, w, 3), 0..1.

    Raises:
        T2VError: for a zoom that is not positive.
    """
    if not 0 < move.zoom < math.inf:
        raise T2VError(f"The camera's zoom is {move.zoom:g}: a positive number is wanted, 1.5 for one.")
    b, h, w, _ = images.shape
    if move.still:
        return images[:, None].expand(-1, frames, -1, -1, -1)
    grid = _views(frames, h, w, move).to(images)  # (t, h, w, 2)
    planes = images.movedim(-1, 1).repeat_interleave(frames, 0)
    seen = F.grid_sample(planes, grid.repeat(b, 1, 1, 1), "bicubic", "reflection", align_corners=False)
    return seen.clamp(0, 1).movedim(1, -1).reshape(b, frames, h, w, -1)


def _views(frames: int, h: int, w: int, move: Camera) -> Tensor:
    """Where each pixel of each frame lies in the picture: (t, h, w, 2), -1..1 from edge to edge, as grid_sample has it."""
    time = torch.linspace(0, 1, frames, dtype=torch.float64) if frames > 1 else torch.zeros(1, dtype=torch.float64)
    size = move.zoom**-time * min(1.0, move.zoom)
    angle = math.radians(move.roll) * time
    offset = (time - 0.5)[:, None] * torch.tensor([move.pan[0] * w, move.pan[1] * h], dtype=torch.float64)

    def placed(x: Tensor, y: Tensor) -> Tensor:
        """Points (n, m) of a view, in pixels from its middle -> (t, n, m, 2), in pixels from the picture's."""
        cos, sin, scale = (each[:, None, None] for each in (angle.cos(), angle.sin(), size))
        turned = torch.stack([x * cos - y * sin, x * sin + y * cos], dim=-1)
        return turned * scale[..., None] + offset[:, None, None]

    half = torch.tensor([w, h], dtype=torch.float64) / 2
    edges = torch.tensor([-0.5, 0.5], dtype=torch.float64)
    corners = placed(*torch.meshgrid(edges * w, edges * h, indexing="xy")).abs() / half
    largest = 1 / float(corners.max().clamp(min=1))
    x = torch.arange(w, dtype=torch.float64) + 0.5 - w / 2
    y = torch.arange(h, dtype=torch.float64) + 0.5 - h / 2
    return placed(*torch.meshgrid(x, y, indexing="xy")) * largest / half
