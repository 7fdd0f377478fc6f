"""A loss curve as a picture, drawn with Pillow alone."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

INK, GRID, PAPER = (40, 40, 46), (222, 222, 226), (255, 255, 255)


def read_losses(folder: Path) -> list[tuple[int, float]]:
    """(step, loss) of a stage; a step that was done twice, before and after an interruption, counts once, and one whose
    loss is no number, or whose line was cut off, not at all."""
    path = folder / "loss.csv"
    if not path.exists():
        return []
    losses = {}
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.reader(file):
            with suppress(ValueError, IndexError):
                losses[int(row[0])] = float(row[1])
    return sorted((step, loss) for step, loss in losses.items() if math.isfinite(loss))


def smoothed(values: Iterable[tuple[int, float]], decay: float = 0.97) -> list[tuple[int, float]]:
    """The running mean of a noisy curve, unbiased at its start."""
    out, total, weight = [], 0.0, 0.0
    for step, value in values:
        total, weight = decay * total + (1 - decay) * value, decay * weight + 1 - decay
        out.append((step, total / weight))
    return out


def draw_curves(curves: dict[str, list[tuple[int, float]]], path: Path, *, width: int = 900, height: int = 360) -> None:
    """One panel per curve, a logarithmic loss over steps, to a PNG."""
    from PIL import Image, ImageDraw, ImageFont

    curves = {name: curve for name, curve in curves.items() if len(curve) > 1}
    image = Image.new("RGB", (width, height * max(len(curves), 1)), PAPER)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(14)
    for row, (name, curve) in enumerate(curves.items()):
        box = (70, row * height + 40, width - 20, (row + 1) * height - 40)
        _panel(draw, font, box, name, curve)
    image.save(path)


def _panel(draw: Any, font: Any, box: tuple[int, int, int, int], name: str, curve: list[tuple[int, float]]) -> None:
    left, top, right, bottom = box
    mean = smoothed(curve)
    logs = [math.log10(max(value, 1e-8)) for _, value in curve]
    low, high = min(logs), max(logs)
    high = high if high > low else low + 1
    first, last = curve[0][0], max(curve[-1][0], curve[0][0] + 1)

    def at(step: int, value: float) -> tuple[float, float]:
        x = left + (right - left) * (step - first) / (last - first)
        y = bottom - (bottom - top) * (math.log10(max(value, 1e-8)) - low) / (high - low)
        return x, y

    draw.text((left, top - 28), f"{name}: loss {mean[-1][1]:.4f} after {curve[-1][0] + 1} steps", INK, font)
    for tick in range(5):
        value = 10 ** (low + (high - low) * tick / 4)
        y = at(first, value)[1]
        draw.line([(left, y), (right, y)], GRID)
        draw.text((left - 60, y - 8), f"{value:.3g}", INK, font)
        step = first + (last - first) * tick // 4
        draw.text((at(step, value)[0] - 12, bottom + 6), str(step), INK, font)
    draw.line([at(*point) for point in curve], (176, 196, 222), 1)
    draw.line([at(*point) for point in mean], (30, 80, 180), 2)
