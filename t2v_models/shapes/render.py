"""Draw scenes from signed distances, blended over one pixel: edges are smooth and motion is finer than a pixel."""

from __future__ import annotations

import math

import torch

from .world import COLOURS, SHAPES, Scene, Trajectory

_TRIANGLE = 1.10
_SQUARE = 0.84
_STAR = 1.22
"""Sizes relative to the circle's radius with which the four shapes look equally large."""


def signed_distance(shape: torch.Tensor, x: torch.Tensor, y: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """Return the distance (n, h, w) of each point to the edge of its shape, negative inside.

    Args:
        shape: (n,) index in `SHAPES`.
        x: (n, h, w) position relative to the shape's centre; y likewise, pointing down.
        radius: (n,) of the shape, in the same unit.
    """
    out = torch.empty_like(x)
    for index, draw in enumerate((_circle, _square, _triangle, _star)):
        rows = (shape == index).nonzero()[:, 0]
        if len(rows):
            out[rows] = draw(x[rows], y[rows], radius[rows, None, None])
    return out


def _circle(x: torch.Tensor, y: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    return torch.hypot(x, y) - r


def _square(x: torch.Tensor, y: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    x, y = x.abs() - _SQUARE * r, y.abs() - _SQUARE * r
    return torch.hypot(x.clamp(min=0), y.clamp(min=0)) + torch.maximum(x, y).clamp(max=0)


def _triangle(x: torch.Tensor, y: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    return _polygon(x, y, [(math.pi * (0.5 + 2 * k / 3), _TRIANGLE) for k in range(3)], r)


def _star(x: torch.Tensor, y: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    return _polygon(x, y, [(math.pi * (0.5 + k / 5), _STAR if k % 2 == 0 else 0.45 * _STAR) for k in range(10)], r)


def _polygon(x: torch.Tensor, y: torch.Tensor, corners: list[tuple[float, float]], r: torch.Tensor) -> torch.Tensor:
    """Exact distance to a polygon; corners: (angle, distance from the centre / r), counter-clockwise with y up."""
    points = [(d * math.cos(a), -d * math.sin(a)) for a, d in corners]
    nearest = torch.full_like(x, 1e9)
    inside = torch.zeros_like(x, dtype=torch.bool)
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        dx, dy = (x1 - x0) * r, (y1 - y0) * r
        px, py = x - x0 * r, y - y0 * r
        along = ((px * dx + py * dy) / (dx * dx + dy * dy)).clamp(0, 1)
        nearest = torch.minimum(nearest, (px - along * dx).square() + (py - along * dy).square())
        crosses = (py < 0) != (py < dy)
        inside ^= crosses & (px < py * dx / (dy if y1 != y0 else 1e-9))
    return torch.where(inside, -nearest.sqrt(), nearest.sqrt())


def render(scenes: list[Scene], trajectories: list[list[Trajectory]], size: int = 64) -> torch.Tensor:
    """Return frames (b, t, 3, size, size) in 0..1.

    Args:
        trajectories: one for each object of each scene, all of t frames.
        size: side of the frame in pixels.
    """
    frames = len(trajectories[0][0].radius)
    palette = {name: torch.tensor(rgb) / 255 for name, rgb in COLOURS.items()}
    image = torch.stack([palette[scene.background] for scene in scenes])[:, None, :, None, None]
    image = image.expand(-1, frames, -1, size, size).clone()
    centre = (torch.arange(size, dtype=torch.float32) + 0.5) / size
    for layer in range(max(len(scene.items) for scene in scenes)):
        rows = [row for row, scene in enumerate(scenes) if len(scene.items) > layer]
        shape = torch.tensor([SHAPES.index(scenes[row].items[layer].shape) for row in rows]).repeat_interleave(frames)
        colour = torch.stack([palette[scenes[row].items[layer].colour] for row in rows])
        position = torch.cat([trajectories[row][layer].position for row in rows])
        radius = torch.cat([trajectories[row][layer].radius for row in rows])
        angle = torch.cat([trajectories[row][layer].angle for row in rows])[:, None, None]
        x, y = centre[None, None, :] - position[:, :1, None], centre[None, :, None] - position[:, 1:, None]
        x, y = torch.broadcast_tensors(x, y)
        x, y = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
        cover = (0.5 - size * signed_distance(shape, x, y, radius)).clamp(0, 1).unflatten(0, (len(rows), frames))
        image[rows] += cover[:, :, None] * (colour[:, None, :, None, None] - image[rows])
    return image
