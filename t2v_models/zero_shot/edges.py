"""Edges of pictures, white on black, as ControlNets of edges are given them.

Source: Canny 1986, A computational approach to edge detection (IEEE PAMI 8:679): smoothed gradients, thinned to their ridges,
kept where they are strong or touch what is strong.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LOW, HIGH = 100 / 255, 200 / 255
"""Thresholds for the sum of both Sobel gradients of a picture 0..1, as ControlNet's own script sets them."""


def canny(pictures: Tensor, low: float = LOW, high: float = HIGH) -> Tensor:
    """Draw the edges of pictures (n, h, w, 3), 0..1: (n, h, w, 3), 1 on an edge and 0 elsewhere."""
    grey = pictures.float() @ torch.tensor([0.299, 0.587, 0.114], device=pictures.device)
    smooth = _filtered(grey[:, None], torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16)
    slope = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], device=smooth.device)
    padded = F.pad(smooth, (1, 1, 1, 1), mode="replicate")
    right, down = (F.conv2d(padded, kernel[None, None]) for kernel in (slope, slope.T))
    strength = right.abs() + down.abs()
    ridge = strength * _is_ridge(strength, right, down)
    strong, weak = (ridge > high).float(), (ridge > low).float()
    while True:
        grown = torch.minimum(F.max_pool2d(strong, 3, stride=1, padding=1), weak)
        if torch.equal(grown, strong):
            return strong.movedim(1, -1).expand(-1, -1, -1, 3).contiguous()
        strong = grown


def are_edges(pictures: Tensor) -> bool:
    """Whether pictures (n, h, w, 3), 0..1, are drawings of edges already: grey, mostly black, else mostly white."""
    colours = pictures.amax(-1) - pictures.amin(-1)
    light = pictures.mean(-1)
    black, between = (light < 0.15).float().mean(), ((light > 0.25) & (light < 0.75)).float().mean()
    white = (light > 0.75).float().mean()
    return bool((colours < 0.15).float().mean() > 0.99 and black > 0.5 and between <= white)


def _filtered(pictures: Tensor, weights: Tensor) -> Tensor:
    """Filter (n, 1, h, w) along both axes; pixels at the border repeat."""
    weights, margin = weights.to(pictures), len(weights) // 2
    padded = F.pad(pictures, (margin,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))


def _is_ridge(strength: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """(n, 1, h, w) whether a gradient is the largest across its edge, by the nearest of four directions."""
    h, w = strength.shape[2:]
    padded = F.pad(strength, (1, 1, 1, 1))

    def neighbour(dy: int, dx: int) -> Tensor:
        return padded[..., 1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w]

    flat, steep = down.abs() < 0.4142 * right.abs(), down.abs() > 2.4142 * right.abs()
    falling = right * down > 0
    ahead = torch.where(falling, neighbour(1, 1), neighbour(-1, 1))
    behind = torch.where(falling, neighbour(-1, -1), neighbour(1, -1))
    ahead = torch.where(flat, neighbour(0, 1), torch.where(steep, neighbour(1, 0), ahead))
    behind = torch.where(flat, neighbour(0, -1), torch.where(steep, neighbour(-1, 0), behind))
    return (strength >= ahead) & (strength > behind)
