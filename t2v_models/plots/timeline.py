"""Timelines of a video: the scenes of a story, and the context windows over a clip."""

from __future__ import annotations

import colorsys

import torch
from torch import Tensor

from ..sampling.scenes import Story
from ..sampling.windows import Windows, window_weights, windows
from .canvas import Axes, Canvas, Colour

_WIDTH, _ROW, _MARGIN = 960, 44, 16
_PAPER, _INK, _FAINT = (24, 26, 30), (235, 235, 235), (90, 94, 100)
_MOST_ROWS, _MOST_SCENES = 24, 100
"""Rows of windows and of scenes that are drawn."""
_LETTERS = 1000
"""Characters of a text that are drawn; no more have room."""


def draw_story(story: Story, fps: float) -> Tensor:
    """Return an image (h, w, 3) in 0..1 with a row per scene: its text, and its share of each frame as brightness.

    Of more than 100 scenes the first are drawn.
    """
    scenes = [*story.scenes, *story.negatives][:_MOST_SCENES]
    blend = story.blend()
    canvas, axes = _timeline(len(scenes), story.frames, fps)
    for i, scene in enumerate(scenes):
        top = _MARGIN + i * _ROW
        negative = i >= len(story.scenes)
        inside = [0.4 * (scene.start <= frame + 0.5 < scene.end) for frame in range(story.frames)] if negative else []
        for frame, share in enumerate(inside or blend[:, i].tolist()):
            if share:
                corner, opposite = (axes.across(frame), top + 4), (axes.across(frame + 1), top + _ROW - 4)
                canvas.rectangle(corner, opposite, _colour(i, share))
        text = f"not: {scene.text[:_LETTERS]}" if negative else scene.text[:_LETTERS]
        canvas.text((axes.across(scene.start) + 6, top + _ROW / 2), text, anchor="lm")
    return canvas.pixels()


def draw_windows(settings: Windows, frames: int, fps: float) -> Tensor:
    """Return an image (h, w, 3) in 0..1 with a row per window: its share of each frame of the result as brightness."""
    spans = windows(frames, settings.length, settings.overlap, looped=settings.looped)
    shown = spans[:_MOST_ROWS]
    weights = window_weights(len(spans[0]), settings.fusion, settings.overlap)
    total = torch.zeros(frames)
    last = frames - 1 if settings.looped else max(span[-1] for span in shown)
    for span in spans:
        if span[0] > last:  # it has no frame in the picture
            break
        total[span] += weights
    canvas, axes = _timeline(len(shown), frames, fps)
    for i, span in enumerate(shown):
        top, bottom = _MARGIN + i * _ROW, _MARGIN + (i + 1) * _ROW - 4
        for frame, weight in zip(span, weights.tolist(), strict=True):
            share = weight / float(total[frame])
            height = (_ROW - 8) * share
            corner, opposite = (axes.across(frame), bottom - height), (axes.across(frame + 1), bottom)
            canvas.rectangle(corner, opposite, _colour(i, 0.3 + 0.7 * share))
        canvas.text((axes.across(span[0]) + 6, top + 8), f"{span[0]} to {span[-1]}", anchor="lm")
    return canvas.pixels()


def _timeline(rows: int, frames: int, fps: float) -> tuple[Canvas, Axes]:
    """A canvas with a number of empty rows, over a horizontal axis of frames and seconds."""
    bottom = _MARGIN + _ROW * rows + 4
    canvas = Canvas(_WIDTH, 2 * _MARGIN + _ROW * rows + 24, paper=_PAPER, ink=_INK)
    axes = Axes(_MARGIN, _MARGIN, _WIDTH - _MARGIN, bottom, x=(0, frames))
    ticks = min(8, frames)
    for i in range(ticks + 1):
        frame = round(i * frames / ticks)
        x = axes.across(frame)
        canvas.line([(x, axes.top), (x, bottom)], _FAINT)
        anchor = {0: "la", ticks: "ra"}.get(i, "ma")
        canvas.text((x, bottom), f"{frame}  ({frame / fps:.1f} s)", anchor=anchor)
    return canvas, axes


def _colour(i: int, strength: float = 1.0) -> Colour:
    """The colour of a row, mixed with the background."""
    rgb = colorsys.hsv_to_rgb((0.58 + 0.381966 * i) % 1.0, 0.55, 0.85)  # golden angle: no two rows are alike
    red, green, blue = (round(strength * c * 255 + (1 - strength) * p) for c, p in zip(rgb, _PAPER, strict=True))
    return red, green, blue
