"""What all plots draw on: an image with text, lines and rectangles, and the axes of a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

Colour = tuple[int, int, int]
"""8-bit RGB."""

Point = tuple[float, float]
"""x and y in pixels from the top left corner."""

INK, GRID, PAPER = (40, 40, 46), (222, 222, 226), (255, 255, 255)


class Canvas:
    """An RGB image to draw on.

    Args:
        width: in pixels; height likewise.
        ink: colour of text.
        font_size: in pixels; None for Pillow's own.
    """

    def __init__(
        self, width: int, height: int, *, paper: Colour = PAPER, ink: Colour = INK, font_size: float | None = None
    ) -> None:
        from PIL import Image, ImageDraw, ImageFont

        self.image = Image.new("RGB", (width, height), paper)
        self.ink = ink
        self._draw = ImageDraw.Draw(self.image)
        self._font = None if font_size is None else ImageFont.load_default(font_size)

    def text(self, at: Point, text: str, colour: Colour | None = None, anchor: str | None = None) -> None:
        """Write a line of text. anchor: the part of the text that lies at the point, as Pillow names it."""
        self._draw.text(at, text, colour or self.ink, self._font, anchor)

    def line(self, points: Sequence[Point], colour: Colour, width: int = 1) -> None:
        """Draw a line through points."""
        self._draw.line(list(points), colour, width)

    def rectangle(self, corner: Point, opposite: Point, colour: Colour) -> None:
        """Fill a rectangle between its top left and bottom right corners."""
        self._draw.rectangle([corner, opposite], colour)

    def dot(self, centre: Point, radius: float, colour: Colour) -> None:
        """Fill a circle."""
        x, y = centre
        self._draw.ellipse([x - radius, y - radius, x + radius, y + radius], colour)

    def paste(self, pixels: torch.Tensor, at: tuple[int, int]) -> None:
        """Copy pixels (h, w, 3) in 0..1 to a place, given by its top left corner."""
        from PIL import Image

        self.image.paste(Image.fromarray((pixels.clamp(0, 1) * 255).round().byte().numpy()), at)

    def save(self, path: Path) -> None:
        """Write an image file, in the format of its ending."""
        self.image.save(path)

    def pixels(self) -> torch.Tensor:
        """Return the image as (h, w, 3) in 0..1."""
        import numpy

        return torch.from_numpy(numpy.asarray(self.image).copy()).float() / 255


@dataclass(frozen=True)
class Axes:
    """A rectangle of a canvas, in pixels, and the values at its edges."""

    left: float
    top: float
    right: float
    bottom: float
    x: tuple[float, float] = (0, 1)
    """Values at the left and right edges."""
    y: tuple[float, float] = (0, 1)
    """Values at the bottom and top edges."""

    def across(self, x: float) -> float:
        """Return the horizontal place of a value, in pixels."""
        first, last = self.x
        return self.left + (self.right - self.left) * (x - first) / (last - first)

    def up(self, y: float) -> float:
        """Return the vertical place of a value, in pixels."""
        low, high = self.y
        return self.bottom - (self.bottom - self.top) * (y - low) / (high - low)

    def at(self, x: float, y: float) -> Point:
        """Return the place of a point, in pixels."""
        return self.across(x), self.up(y)

    def grid_line(self, canvas: Canvas, y: float, label: str, margin: float) -> None:
        """Draw a horizontal line at a value, with a label that begins `margin` pixels left of the axes."""
        canvas.line([(self.left, self.up(y)), (self.right, self.up(y))], GRID)
        canvas.text((self.left - margin, self.up(y) - 8), label)
