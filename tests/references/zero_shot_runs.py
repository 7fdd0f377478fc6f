"""Recorded runs of diffusers' Text2Video-Zero pipelines, with the seeded networks of tests/comfy/small_image_unets.py.

The noise of a run comes from one generator of torch: first the latents of the first frame, then the noise of the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FILE = Path(__file__).parent / "recorded" / "zero_shot" / "runs.npz"
SEED = 7
FRAMES = 4


@dataclass(frozen=True)
class ZeroShotRun:
    """The settings of one recorded run."""

    layout: str
    """Of the network, "sd15" or "sdxl"."""
    size: tuple[int, int] = (8, 8)
    """Of the latents: height, width."""
    motion: tuple[float, float] = (96.0, -64.0)
    """Strengths of the motion field, x and y."""
    steps: int = 50
    parts: tuple[int, int] = (44, 47)
    """The pipeline's t0 and t1: steps from the clean end."""
    guidance_scale: float = 7.5
    v_prediction: bool = False

    @property
    def name(self) -> str:
        kind = " v" if self.v_prediction else ""
        return f"{self.layout}{kind} {self.steps} steps, {self.size[0]}x{self.size[1]}, scale {self.guidance_scale:g}"


RUNS = (
    ZeroShotRun("sd15"),
    ZeroShotRun("sdxl"),
    ZeroShotRun("sd15", size=(8, 12), steps=20, parts=(15, 18), guidance_scale=3.0),
    ZeroShotRun("sd15", v_prediction=True, steps=20, parts=(15, 18), guidance_scale=3.0),
)


def load() -> dict[str, Tensor]:
    """Return the latents of every run by its name, (frames, 4, h, w), scaled as the network has them."""
    with np.load(FILE) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files if name != "source"}
