"""Methods by which a model that was made for texts animates a picture: each returns a MODEL and a LATENT for a sampler.

Pictures are (1, h, w, 3), 0..1, of the clip's size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...t2v_models.image.camera import camera, camera_stills
from . import decoding
from .latents import empty
from .sampling.frame_init import with_frame_init
from .sampling.held_frames import held_latent, with_held_frames
from .sampling.repeat_and_slide import with_repeat_and_slide

Prepared = tuple[Any, dict[str, Tensor]]
"""MODEL and LATENT."""


def held(model: Any, vae: Any, image: Tensor, frames: int, end_image: Tensor | None, *, resample: int) -> Prepared:
    """Keep the picture as the first frame, and the other picture, if there is one, as the last, exactly as they are."""
    latent = _empty(model, image, frames)
    clip, known = latent["samples"], torch.zeros(frames, dtype=torch.bool)
    for at, picture in ((0, image), (frames - 1, end_image)):
        if picture is not None:
            clip[:, :, at], known[at] = decoding.encode(vae, picture).to(clip)[:, :, 0], True
    return with_held_frames(model, known, resample=resample), {**latent, **held_latent(clip, known)}


def frame_init(model: Any, vae: Any, image: Tensor, frames: int, *, move: str, strength: float) -> Prepared:
    """Put the picture's large shapes into the noise, or those that a camera sees that moves over it.

    move: see `image.camera.CAMERAS`. strength: the share of these shapes, 0..1.
    """
    latent, moving = _empty(model, image, frames), camera(move)
    stills = image if moving.still else camera_stills(image, frames, moving)[0]
    still = decoding.encode(vae, stills).to(latent["samples"])
    return with_frame_init(model, still.expand(-1, -1, frames, -1, -1), strength=strength), latent


def repeat_and_slide(model: Any, vae: Any, image: Tensor, frames: int, *, known: int, resample: int) -> Prepared:
    """Keep the picture as the first frame, exactly as it is; the other frames follow one after another."""
    latent, first = _empty(model, image, frames), torch.arange(frames) == 0
    clip = latent["samples"]
    clip[:, :, 0] = decoding.encode(vae, image).to(clip)[:, :, 0]

    def refresh(latents: Tensor) -> Tensor:
        """Decode and encode new frames, as TI2V-Zero does before the next clip begins with them."""
        return torch.cat([decoding.encode(vae, decoding.decode(vae, {"samples": each[None]})) for each in latents])

    model = with_repeat_and_slide(model, known=known, resample=resample, refresh=refresh)
    return model, {**latent, **held_latent(clip, first)}


def _empty(model: Any, image: Tensor, frames: int) -> dict[str, Tensor]:
    """A LATENT of zeros for a clip of the picture's size."""
    return empty(image.shape[2], image.shape[1], frames, 1, model)
