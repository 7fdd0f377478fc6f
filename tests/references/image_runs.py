"""Recorded runs of VideoCrafter1's and DynamiCrafter's own image-to-video code, from a picture to latents.

A recording is a whole small checkpoint under the names of the published files (UNet, VAE, image encoder, Resampler), whose
weights follow from their names and shapes, and a part of what the originals' code made of it. The noise of a run comes from
one generator of torch, as our pipeline draws it: first the latents, then, frame by frame, the fresh noise of every step.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .samplers import OUTPUT_GAIN
from .seeding import normal, weights

FOLDER = Path(__file__).parent / "recorded" / "image_to_video"
FRAMES, HEIGHT, WIDTH = 16, 32, 64
"""Of the videos, in frames and pixels; the VAE makes latents of an eighth."""
SEED = 7
KEPT = 256
"""About so many values of a tensor are kept: see `part`."""
NETWORKS = {
    "videocrafter1-i2v": "videocrafter1-i2v",
    "dynamicrafter-256": "dynamicrafter-256",
    "dynamicrafter-512": "dynamicrafter-512",
    "dynamicrafter-1024": "dynamicrafter-512",
    "dynamicrafter-512-interp": "dynamicrafter-512",
    "dynamicrafter-512-loop": "dynamicrafter-512",
}
"""Family -> the recording of its network."""


def part(values: Tensor) -> Tensor:
    """The values that a recording keeps of a tensor of any shape, (n,)."""
    stride = max(1, values.numel() // KEPT) | 1  # odd, so that every column of a frame has its turn
    return values.flatten()[::stride].contiguous()


@dataclass(frozen=True)
class ImageRun:
    """The settings of one recorded run."""

    family: str
    steps: int
    eta: float
    guidance_scale: float = 7.5
    guidance_rescale: float = 0.0
    image_scale: float | None = None
    """Guidance by the picture where it has a scale of its own."""

    @property
    def name(self) -> str:
        image = "" if self.image_scale is None else f", image {self.image_scale:g}"
        return f"{self.family} {self.steps} steps, eta {self.eta:g}, rescale {self.guidance_rescale:g}{image}"


VIDEOCRAFTER = [
    ImageRun("videocrafter1-i2v", steps, eta, 12.0)
    for steps, eta in ((5, 0.0), (5, 1.0), (10, 0.0), (10, 1.0), (7, 1.0))
]
DYNAMICRAFTER = [
    *(ImageRun(family, steps, eta) for family in ("dynamicrafter-256",) for steps in (5, 10) for eta in (0.0, 1.0)),
    ImageRun("dynamicrafter-256", 10, 1.0, guidance_rescale=0.7),
    ImageRun("dynamicrafter-256", 7, 1.0),
    *(
        ImageRun(family, steps, eta, guidance_rescale=rescale)
        for family in ("dynamicrafter-512", "dynamicrafter-1024")
        for steps in (5, 10)
        for eta in (0.0, 1.0)
        for rescale in (0.0, 0.7)
    ),
    ImageRun("dynamicrafter-512", 9, 1.0, guidance_rescale=0.7),
    ImageRun("dynamicrafter-512", 7, 0.0, guidance_rescale=0.7),
    *(ImageRun(f"dynamicrafter-512-{kind}", 10, eta, 7.5, 0.7) for kind in ("interp", "loop") for eta in (0.0, 1.0)),
    *(ImageRun("dynamicrafter-512", 5, 1.0, 7.5, 0.7, image) for image in (7.5, 3.0)),
    ImageRun("dynamicrafter-256", 5, 0.0, 7.5, 0.0, 3.0),
]
UNET_FRAMES = {"dynamicrafter-256": (16, 8, 20), "dynamicrafter-512": (16, 8, 20), "videocrafter1-i2v": (16,)}
"""Network -> numbers of frames of single calls; of 256 tokens each of 16 frames has 16, any other number shares all."""


def picture(name: str = "first", height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A smooth picture of seeded colours, (height, width, 3), uint8."""
    coarse = normal(f"picture {name}", (1, 3, 4, 6)).sigmoid()
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    return (fine[0].movedim(0, -1) * 255).round().to(torch.uint8).numpy()


@dataclass
class ImageRecording:
    """What the originals' code made of one network."""

    source: str
    """The repository and the revision it was recorded from."""
    shapes: dict[str, list[int]]
    """Name -> shape of every weight of the checkpoint, seeded as `seeding.weights` has them."""
    context_dim: int
    values: dict[str, Tensor]
    """`part` of the latents of every run by its name, and "tokens", "grey tokens", "image latents", "sampled image
    latents" (with `posterior_noise`), "16 frames" … for single calls of the UNet."""

    def state_dict(self) -> dict[str, Tensor]:
        """The checkpoint's weights, under the names of the published file."""
        state_dict = weights({name: tuple(shape) for name, shape in self.shapes.items()})
        return {
            name: value * OUTPUT_GAIN if name.startswith("model.diffusion_model.out.2.") else value
            for name, value in state_dict.items()
        }

    def contexts(self) -> tuple[Tensor, Tensor]:
        """The prompt's and the negative prompt's embedding, (1, 77, d) each."""
        shape = (1, 77, self.context_dim)
        return normal("prompt", shape), normal("negative prompt", shape)

    def save(self, name: str) -> Path:
        FOLDER.mkdir(parents=True, exist_ok=True)
        head = {key: value for key, value in asdict(self).items() if key != "values"}
        text = zlib.compress(json.dumps(head, separators=(",", ":")).encode(), 9)
        path = FOLDER / f"{name}.npz"
        np.savez(path, head=np.frombuffer(text, dtype=np.uint8), **{k: v.numpy() for k, v in self.values.items()})
        return path

    @classmethod
    def load(cls, name: str) -> ImageRecording:
        """Load the recording of a network, a value of `NETWORKS`."""
        with np.load(FOLDER / f"{name}.npz") as file:
            values = {key: torch.from_numpy(file[key]) for key in file.files if key != "head"}
            return cls(**json.loads(zlib.decompress(file["head"].tobytes())), values=values)


def posterior_noise() -> Tensor:
    """Standard normal noise for the VAE's latents of a first and a last picture, (1, 4, 2, h/8, w/8)."""
    return normal("posterior", (1, 4, 2, HEIGHT // 8, WIDTH // 8))


def unet_call(frames: int, channels: int) -> dict[str, Tensor]:
    """The seeded input x, (1, channels, frames, h/8, w/8), and timestep of a single call of the UNet."""
    return {"x": normal("x", (1, channels, frames, HEIGHT // 8, WIDTH // 8)), "timesteps": torch.tensor([481])}
