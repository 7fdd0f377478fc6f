"""Pictures of what changes over time: a story's scenes, and the windows over a clip."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..sampling.story import Story
from ..sampling.windows import Windows, window_weights, windows

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

_WIDTH, _ROW, _MARGIN = 960, 44, 16
_PAPER, _INK, _FAINT = (24, 26, 30), (235, 235, 235), (90, 94, 100)


def _canvas(rows: int) -> tuple[object, ImageDraw]:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (_WIDTH, 2 * _MARGIN + _ROW * rows + 24), _PAPER)
    return image, ImageDraw.Draw(image)


def _colour(i: int, strength: float = 1.0) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb((0.58 + 0.381966 * i) % 1.0, 0.55, 0.85)  # golden angle: never alike
    mixed = (strength * c * 255 + (1 - strength) * p for c, p in zip((red, green, blue), _PAPER, strict=True))
    return tuple(round(value) for value in mixed)


def _axis(draw: ImageDraw, rows: int, frames: int, fps: float) -> None:
    y = _MARGIN + _ROW * rows + 4
    ticks = min(8, frames)
    for i in range(ticks + 1):
        frame = round(i * frames / ticks)
        x = _MARGIN + frame / frames * (_WIDTH - 2 * _MARGIN)
        draw.line([(x, _MARGIN), (x, y)], fill=_FAINT)
        anchor = {0: "la", ticks: "ra"}.get(i, "ma")
        draw.text((x, y), f"{frame}  ({frame / fps:.1f} s)", fill=_INK, anchor=anchor)


def _tensor(image: object) -> Tensor:
    import numpy

    return torch.from_numpy(numpy.asarray(image).copy()).float() / 255


def draw_story(story: Story, fps: float) -> Tensor:
    """(h, w, 3), 0..1: a row per scene, as bright as its share of each frame, with its text."""
    scenes = [*story.scenes, *story.negatives]
    blend = story.blend()
    image, draw = _canvas(len(scenes))
    _axis(draw, len(scenes), story.frames, fps)
    for i, scene in enumerate(scenes):
        top = _MARGIN + i * _ROW
        negative = i >= len(story.scenes)
        for frame in range(story.frames):
            inside = scene.start <= frame + 0.5 < scene.end
            share = float(inside) * 0.4 if negative else float(blend[frame, i])
            if share:
                left = _MARGIN + frame / story.frames * (_WIDTH - 2 * _MARGIN)
                right = _MARGIN + (frame + 1) / story.frames * (_WIDTH - 2 * _MARGIN)
                draw.rectangle([left, top + 4, right, top + _ROW - 4], fill=_colour(i, share))
        left = _MARGIN + scene.start / story.frames * (_WIDTH - 2 * _MARGIN)
        text = f"not: {scene.text}" if negative else scene.text
        draw.text((left + 6, top + _ROW / 2), text, fill=_INK, anchor="lm")
    return _tensor(image)


def draw_windows(settings: Windows, frames: int, fps: float) -> Tensor:
    """(h, w, 3), 0..1: a row per window, each frame as bright as its share of the result."""
    spans = windows(frames, settings.length, settings.overlap, looped=settings.looped)
    shown = spans[:24]
    weights = window_weights(len(spans[0]), settings.fusion, settings.overlap)
    total = torch.zeros(frames)
    for span in spans:
        total[span] += weights
    image, draw = _canvas(len(shown))
    _axis(draw, len(shown), frames, fps)
    for i, span in enumerate(shown):
        top = _MARGIN + i * _ROW
        for frame, weight in zip(span, weights.tolist(), strict=True):
            share = weight / float(total[frame])
            left = _MARGIN + frame / frames * (_WIDTH - 2 * _MARGIN)
            right = _MARGIN + (frame + 1) / frames * (_WIDTH - 2 * _MARGIN)
            height = (_ROW - 8) * share
            draw.rectangle([left, top + _ROW - 4 - height, right, top + _ROW - 4], fill=_colour(i, 0.3 + 0.7 * share))
        left = _MARGIN + span[0] / frames * (_WIDTH - 2 * _MARGIN)
        draw.text((left + 6, top + 8), f"{span[0]} to {span[-1]}", fill=_INK, anchor="lm")
    return _tensor(image)
