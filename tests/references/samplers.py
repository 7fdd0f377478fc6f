"""Recorded runs of VideoCrafter's and DynamiCrafter's own DDIMSampler, with seeded weights and noise.

The noise of a run comes from one generator of torch, as our pipeline draws it: first the latents, then, frame by frame,
the fresh noise of every step.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .seeding import normal, weights

FOLDER = Path(__file__).parent / "recorded" / "samplers"
SHAPE = (1, 4, 5, 8, 4)
"""Of the latents: (b, c, t, h, w)."""
SEED = 7
OUTPUT_GAIN = 0.2
"""Of the networks' last layer. Without it a guided run of random weights is chaotic: two runs that differ in rounding
alone, in float32 and float64, end 6e-4 apart."""


@dataclass(frozen=True)
class Run:
    """The settings of one recorded run."""

    family: str
    """A name of `t2v_models.families.FAMILIES`, whose noise schedule and sampler the run has."""
    steps: int
    eta: float
    guidance_scale: float
    guidance_rescale: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.family} {self.steps} steps, eta {self.eta:g}, rescale {self.guidance_rescale:g}"


VIDEOCRAFTER = [
    Run(family, steps, eta, 12.0)
    for family in ("videocrafter2", "videocrafter1-512", "videocrafter1-1024")
    for steps in (10, 50)
    for eta in (0.0, 1.0)
]
DYNAMICRAFTER = [
    Run(family, steps, eta, 7.5, rescale)
    for family in ("dynamicrafter-512", "dynamicrafter-1024")
    for steps in (5, 10)
    for eta in (0.0, 1.0)
    for rescale in (0.0, 0.7)
]


def calmed(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Seeded weights with `OUTPUT_GAIN`."""
    return {name: value * OUTPUT_GAIN if name.startswith("out.2.") else value for name, value in state_dict.items()}


@dataclass
class SamplerRecording:
    """The runs of one network."""

    source: str
    """The class and the revision it was recorded from."""
    shapes: dict[str, list[int]]
    """Name -> shape of every weight, seeded as `seeding.weights` has them."""
    context_dim: int
    fps: float | None
    runs: dict[str, Tensor]
    """The name of a run -> its latents."""

    def state_dict(self) -> dict[str, Tensor]:
        """The network's weights."""
        state_dict = weights({name: tuple(shape) for name, shape in self.shapes.items()})
        return calmed(state_dict)

    def contexts(self) -> tuple[Tensor, Tensor]:
        """The prompt's and the negative prompt's embedding, (1, 77, d) each."""
        shape = (1, 77, self.context_dim)
        return normal("prompt", shape), normal("negative prompt", shape)

    def save(self, name: str) -> Path:
        FOLDER.mkdir(parents=True, exist_ok=True)
        head = {key: value for key, value in asdict(self).items() if key != "runs"}
        path = FOLDER / f"{name}.npz"
        arrays = {key: value.numpy() for key, value in self.runs.items()}
        np.savez_compressed(path, head=np.array(json.dumps(head)), **arrays)
        return path

    @classmethod
    def load(cls, name: str) -> SamplerRecording:
        with np.load(FOLDER / f"{name}.npz") as file:
            runs = {key: torch.from_numpy(file[key]) for key in file.files if key != "head"}
            return cls(**json.loads(str(file["head"])), runs=runs)
