"""How a film is made: methods, windows, steps and seed."""

from __future__ import annotations

from dataclasses import dataclass

from ..sampling.windows import Windows

METHODS = {
    "windows": "overlapping windows, averaged at every step; each frame sees its neighbours",
    "free-noise": "one pass over all frames with windowed temporal attention and repeated noise; short films",
    "coarse-to-fine": "sparse key frames first, then what lies between; little memory at any length",
    "endless": "a queue of frames, each one noise level behind the next; constant memory, any length",
}

CLIP_AFTER_CLIP = "clip-after-clip"
"""The method of models that make clips of pictures, which have no other: each clip begins with the last frame of the one
before."""

LOOPS = ("windows", "coarse-to-fine")
"""The methods that can lead the end of a film to its beginning."""

LEADS_ON = ("coarse-to-fine", "endless", CLIP_AFTER_CLIP)
"""The methods by which all that follows comes from the film's beginning, such as a picture."""


@dataclass(frozen=True)
class Settings:
    """How a film is made, besides its method."""

    steps: int
    guidance_scale: float
    seed: int
    window: Windows
    batch: int = 8
    """Windows or segments that are denoised together; as many of them go through the UNet at once as fit."""
    resample: int = 2
    """Rounds per step in which known and new frames come to agree, for models without a timestep for every frame."""
    candidates: int = 4
    """Sets of key frames of which "coarse-to-fine" takes the steadiest."""


def usual_windows(own: int, frames: int, *, looped: bool = False) -> Windows:
    """Windows of the model's own length, or of the film's if that is shorter, each half into the next."""
    length = min(own, frames)
    return Windows(length, length // 2, looped=looped)
