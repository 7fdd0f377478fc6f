"""Loss curves of a training."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from .canvas import Axes, Canvas

LOSS, MEAN = (176, 196, 222), (30, 80, 180)
"""Colours of the losses of single steps, and of their mean."""

Curve = list[tuple[int, float]]
"""(step, loss)."""


def read_losses(folder: Path) -> Curve:
    """Return the losses of a stage from its loss.csv, none if it has no such file.

    Of a step that was done twice, before and after an interruption, the last loss counts. Lines that are cut off and
    losses that are not finite are left out.
    """
    path = folder / "loss.csv"
    if not path.exists():
        return []
    losses = {}
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.reader(file):
            with suppress(ValueError, IndexError):
                losses[int(row[0])] = float(row[1])
    return sorted((step, loss) for step, loss in losses.items() if math.isfinite(loss))


def smoothed(values: Iterable[tuple[int, float]], decay: float = 0.97) -> Curve:
    """Return the running mean of a noisy curve, unbiased at its start."""
    out, total, weight = [], 0.0, 0.0
    for step, value in values:
        total, weight = decay * total + (1 - decay) * value, decay * weight + 1 - decay
        out.append((step, total / weight))
    return out


def draw_curves(curves: dict[str, Curve], path: Path, *, width: int = 900, height: int = 360) -> None:
    """Write an image with one panel per curve, which shows the loss on a logarithmic scale over the steps."""
    curves = {name: curve for name, curve in curves.items() if len(curve) > 1}
    canvas = Canvas(width, height * max(len(curves), 1), font_size=14)
    for row, (name, curve) in enumerate(curves.items()):
        _draw_panel(canvas, 70, row * height + 40, width - 20, (row + 1) * height - 40, name, curve)
    canvas.save(path)


def _draw_panel(canvas: Canvas, left: int, top: int, right: int, bottom: int, name: str, curve: Curve) -> None:
    mean = smoothed(curve)
    logs = [_log(value) for _, value in curve]
    low, high = min(logs), max(logs)
    high = high if high > low else low + 1
    first, last = curve[0][0], max(curve[-1][0], curve[0][0] + 1)
    axes = Axes(left, top, right, bottom, (first, last), (low, high))
    canvas.text((left, top - 28), f"{name}: loss {mean[-1][1]:.4f} after {curve[-1][0] + 1} steps")
    for tick in range(5):
        value = 10 ** (low + (high - low) * tick / 4)
        axes.grid_line(canvas, _log(value), f"{value:.3g}", 60)
        step = first + (last - first) * tick // 4
        canvas.text((axes.across(step) - 12, bottom + 6), str(step))
    canvas.line([axes.at(step, _log(value)) for step, value in curve], LOSS)
    canvas.line([axes.at(step, _log(value)) for step, value in mean], MEAN, 2)


def _log(value: float) -> float:
    return math.log10(max(value, 1e-8))
