"""The motion field: latents of the first frame, moved to where each further frame shows them.

Source: Khachatryan et al. 2023, Text2Video-Zero (arXiv:2303.13439), section 3.3.1: all frames but the first begin as copies
of the first frame's latents that are shifted in proportion to their number. Here a frame takes its value at a whole latent
(the default, which keeps the variance of the noise in the latents) or between latents.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import T2VError

log = logging.getLogger(__name__)

PATHS = ("straight", "there and back", "zoom", "turn", "circle", "curve")
"""Ways of a camera over the first frame."""

HOW = ("nearest", "bilinear")
"""How a value between latents is read; bilinear moves by parts of a latent, and blurs the noise."""

FIELD = 512
"""Strengths are in pixels of a frame of this width and height, whatever the video's size."""

MOST_POINTS = 1000
LARGEST_STRENGTH = 10_000.0


@dataclass(frozen=True)
class Motion:
    """How a camera moves over the first frame; things in the picture move the other way.

    x and y are strengths per frame, in pixels of a frame of 512x512; positive ones move the camera right and down.

    - "straight": frame k is shifted by k times (x, y).
    - "there and back": likewise up to the middle of the video, then back; the last frame is where the first is.
    - "zoom": the picture becomes x per cent larger with every frame (smaller where x is negative); y is not used.
    - "turn": the camera turns clockwise by x degrees with every frame; y is not used.
    - "circle": once around an ellipse in all frames, which begins to the right; half its width is x * frames / (2 pi), half
      its height y * frames / (2 pi).
    - "curve": through `points`, from the first at frame 0 to the last at the last frame; x and y are not used.

    Raises:
        T2VError: for a path that is not known, a strength that is no finite number, or a curve of fewer than 2 points.
    """

    path: str = "straight"
    x: float = 12.0
    y: float = 12.0
    points: tuple[tuple[float, float], ...] = ()
    """Positions of the camera (x, y), in pixels of a frame of 512x512, at equal distances in time."""

    def __post_init__(self) -> None:
        if self.path not in PATHS:
            raise T2VError(f"The path of the motion is {self.path!r}: choose one of {', '.join(PATHS)}.")
        _check_strengths((self.x, self.y), "The strength of the motion")
        if self.path == "zoom" and not -50 <= self.x <= 100:
            raise T2VError(f"The zoom is {self.x:g} per cent a frame: a number from -50 to 100 is wanted, such as 5.")
        if self.path != "curve":
            if self.points:
                raise T2VError(
                    f"Points are given for the path {self.path!r}: only a curve has points, so leave them out."
                )
            return
        if not 2 <= len(self.points) <= MOST_POINTS:
            raise T2VError(
                f"The curve has {len(self.points)} points: from 2 to {MOST_POINTS} are wanted, such as (0, 0) and (80, 40)."
            )
        for point in self.points:
            if len(point) != 2:
                raise T2VError(f"A point of the curve has {len(point)} numbers: x and y are wanted, such as (80, 40).")
            _check_strengths(point, "A point of the curve")


def _check_strengths(values: Sequence[float], name: str) -> None:
    for value in values:
        if not isinstance(value, (int, float)) or not abs(value) <= LARGEST_STRENGTH:
            raise T2VError(f"{name} is {value!r}: a number from -10000 to 10000 is wanted, such as 12.")


def sources(motion: Motion, frame_ids: Sequence[int], frames: int, height: int, width: int) -> Tensor:
    """Where each latent of each frame comes from in the first frame.

    A shift carries half a pixel with it, as in the paper's code, so that no latent lies half-way between two others for
    whole strengths. Where a shift is as large as the picture, only its mirror image is left, which is logged once.

    Args:
        motion: the camera's.
        frame_ids: numbers of the wanted frames in the video; 0 is the first, which does not move.
        frames: of the whole video, which paths that return are laid over.
        height: of the latents.
        width: of the latents.

    Returns:
        (f, 2, height, width) float64, continuous y and x in latents; 0 is the middle of the first row or column. They may
        lie outside of the picture: `warp` reflects them.
    """
    ids = torch.tensor(list(frame_ids), dtype=torch.float64)[:, None, None]
    y = torch.arange(height, dtype=torch.float64)[None, :, None]
    x = torch.arange(width, dtype=torch.float64)[None, None, :]
    if motion.path in ("zoom", "turn"):
        grow = (1 + motion.x / 100) ** -ids if motion.path == "zoom" else torch.ones_like(ids)
        angle = ids * math.radians(motion.x) if motion.path == "turn" else torch.zeros_like(ids)
        down, right = y - (height - 1) / 2, x - (width - 1) / 2
        y = (height - 1) / 2 + grow * (angle.cos() * down + angle.sin() * right)
        x = (width - 1) / 2 + grow * (angle.cos() * right - angle.sin() * down)
    else:
        _log_mirrored(motion, frame_ids, frames)
        shifts = _shifts(motion, ids.flatten(), frames)
        shifts = torch.where(shifts == 0, 0, shifts - 0.5) / FIELD
        x = x + shifts[:, 0, None, None] * width
        y = y + shifts[:, 1, None, None] * height
    shape = (len(ids), height, width)
    return torch.stack([y.expand(shape), x.expand(shape)], dim=1)


def warp(x: Tensor, sources: Tensor, how: str = "nearest") -> Tensor:
    """Move the first frame's latents to every frame; outside of the picture they are mirrored at its edges.

    "nearest" gives the bits of diffusers' TextToVideoZeroPipeline for a straight path.

    Args:
        x: (1, c, h, w).
        sources: (f, 2, h, w) of `sources`.
        how: "nearest" or "bilinear".

    Returns:
        (f, c, h, w), in the type of x and on its device.

    Raises:
        T2VError: for another way to read, or more than one frame to move.
    """
    if how not in HOW:
        raise T2VError(f"The way to warp is {how!r}: choose one of {', '.join(HOW)}.")
    if x.ndim != 4 or x.shape[0] != 1 or x.shape[2:] != sources.shape[2:]:
        raise T2VError(
            f"Latents of shape {tuple(x.shape)} cannot be warped by a field of shape {tuple(sources.shape)}: one frame "
            "(1, c, h, w) is wanted, of the field's height and width."
        )
    height, width = x.shape[2:]
    if how == "nearest":
        return _gather(x, _whole(sources[:, 0], height), _whole(sources[:, 1], width))
    top, left = sources[:, 0].floor(), sources[:, 1].floor()
    down, right = ((sources[:, i] - edge)[:, None].to(x) for i, edge in enumerate((top, left)))
    rows = _whole(top, height), _whole(top + 1, height)
    columns = _whole(left, width), _whole(left + 1, width)
    upper, lower = (_gather(x, row, columns[0]) * (1 - right) + _gather(x, row, columns[1]) * right for row in rows)
    return upper * (1 - down) + lower * down


def _gather(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(1, c, h, w) at whole (f, h, w) rows and columns -> (f, c, h, w)."""
    return x[0][:, rows.to(x.device), columns.to(x.device)].movedim(1, 0).contiguous()


def _whole(places: Tensor, size: int) -> Tensor:
    """Continuous places, reflected at -1/2 and size - 1/2, then rounded to whole ones (halves to even), int64."""
    from_edge = (places + 0.5).abs()
    turns, rest = (from_edge / size).floor(), from_edge.remainder(size)
    reflected = torch.where(turns % 2 == 0, rest, size - rest) - 0.5
    return reflected.round().clamp(0, size - 1).long()


def _shifts(motion: Motion, ids: Tensor, frames: int) -> Tensor:
    """(f,) numbers of frames -> (f, 2) shifts x and y of the camera, in pixels of `FIELD`."""
    strength = torch.tensor([motion.x, motion.y], dtype=torch.float64)
    if motion.path == "straight":
        return ids[:, None] * strength
    if motion.path == "there and back":
        return torch.minimum(ids, frames - 1 - ids)[:, None] * strength
    if motion.path == "circle":
        angle = 2 * math.pi * ids / frames
        around = torch.stack([angle.sin(), 1 - angle.cos()], dim=1)
        return around * strength * frames / (2 * math.pi)
    return _curve(torch.tensor(motion.points, dtype=torch.float64), ids / max(frames - 1, 1))


def _curve(points: Tensor, time: Tensor) -> Tensor:
    """A Catmull-Rom spline through (n, 2) points, from the first; (f,) times 0..1 -> (f, 2)."""
    place = time.clamp(0, 1) * (len(points) - 1)
    begin = place.floor().long().clamp(max=len(points) - 2)
    ends = torch.cat([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    before, start, end, after = (ends[begin + i] for i in range(4))
    t = (place - begin)[:, None]
    smooth = start + t / 2 * (
        end - before + t * (2 * before - 5 * start + 4 * end - after + t * (3 * (start - end) + after - before))
    )
    return smooth - points[0]


def _log_mirrored(motion: Motion, frame_ids: Sequence[int], frames: int) -> None:
    """Log from which frame on a shift is as large as the picture, where that frame is among the wanted ones."""
    every = torch.arange(max(frames, max(frame_ids, default=0) + 1), dtype=torch.float64)
    gone = (_shifts(motion, every, frames).abs() >= FIELD).any(1).nonzero()
    if len(gone) and int(gone[0]) in frame_ids:
        log.warning(
            "From frame %d on the motion has left the picture, and its mirror image is seen: take less motion, fewer "
            "frames, or a path that returns.",
            int(gone[0]),
        )
