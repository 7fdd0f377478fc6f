"""A clip whose frames tell their numbers, and reading of data sets made of it."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np

from t2v_models.datasets import (
    Clip,
    Faults,
    clips,
)
from t2v_models.video import VideoWriter

STEP = 5
"""Frame k of the test's video has the grey k * STEP."""
RATE, FRAMES = 12, 48


def write_video(
    path: Path, rate: float | Fraction = RATE, frames: int = FRAMES, size: tuple[int, int] = (48, 32)
) -> Path:
    with VideoWriter(path, rate) as writer:
        for k in range(frames):
            writer.write(np.full((size[1], size[0], 3), k * STEP, np.uint8))
    return path


def shown(frames: np.ndarray) -> list[int]:
    """The numbers of the frames in the file, by their greys."""
    return [round(float(frame.mean()) / STEP) for frame in frames]


def read(path: Path, **options) -> tuple[list[Clip], Faults]:
    faults = Faults()
    return list(clips(path, faults, **options)), faults


def put(video: Path, *places: Path) -> None:
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(video, place)
