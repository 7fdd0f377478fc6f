"""A video through several pictures: a clip between every two neighbours, joined at the pictures that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import comfy.utils
import torch
from torch import Tensor

from ...t2v_models.errors import T2VError
from . import image_to_video
from .image_to_video import Request
from .latents import empty
from .models.model import video_model
from .models.reference_vae import PICTURES
from .sampling import preview, run


def make(
    *,
    model: Any,
    positive: Sequence[list],
    negative: list,
    vae: Any,
    images: Sequence[Tensor],
    frames: int,
    width: int,
    height: int,
    fit: str,
    closed_loop: bool,
    motion: float = 0.0,
    clip_vision: Any = None,
    **sampling: Any,
) -> dict[str, Tensor]:
    """Make a LATENT that passes through n pictures, (1, 4, (n - 1) (frames - 1) + 1, h, w).

    Args:
        model, negative, vae, clip_vision: the host's.
        positive: one CONDITIONING for all clips, or one for each.
        images: batches of pictures, (b, h, w, 3), of any sizes.
        frames, width, height, fit, motion: what each clip is asked for, with both ends, see `image_to_video.Request`.
        closed_loop: a last clip leads back to the first picture, and ends before it.
        sampling: values of `run.Settings`; each clip's seed is one more than that of the clip before.

    Raises:
        T2VError: for a model that cannot end at a picture, for fewer than two pictures, and for another number of texts.
    """
    pictures = [picture[None] for batch in images for picture in batch]
    _check_model(model)
    if len(pictures) < 2:
        raise T2VError("One picture is given and at least 2 are wanted: T2VImageToVideo makes a video of one picture.")
    pairs = list(pairwise([*pictures, pictures[0]] if closed_loop else pictures))
    if len(positive) not in (1, len(pairs)):
        raise T2VError(f"{len(positive)} texts are given for {len(pairs)} clips: give one for all, or one for each.")
    frames = frames or video_model(model).defaults.frames
    if frames < 2:
        raise T2VError("A clip of 1 frame has no end: set frames to 2 at least, or to 0 for the model's own length.")
    video = empty(width, height, len(pairs) * (frames - 1) + (not closed_loop), 1, model)
    settings = run.Settings(denoise=1.0, **sampling)
    samples, bar = video["samples"], comfy.utils.ProgressBar(len(pairs) * settings.steps)
    shown: list[Tensor] = []
    for i, (first, last) in enumerate(pairs):
        asked = Request(first, frames, width, height, fit, motion=motion, end_image=last)
        texts = positive[i % len(positive)], negative
        ready, *conds, latent = image_to_video.animate(model, *texts, vae, clip_vision, asked)
        step = preview.callback(ready, settings.steps, bar, i * settings.steps)
        made = run.sample(ready, *conds, latent, replace(settings, seed=settings.seed + i), step)["samples"]
        start = i * (frames - 1)
        room = samples[:, :, start : start + frames]  # a loop's last clip ends before the first picture
        room.copy_(made[:, :, : room.shape[2]])
        if PICTURES in latent:  # for a VAE that looks at them
            shown.append(latent[PICTURES][int(i > 0) :])
    return {**video, PICTURES: torch.cat(shown)} if shown else video


def _check_model(model: Any) -> None:
    """Raise T2VError for a model that cannot end at a picture."""
    family = video_model(model).family
    if not family.frame_timesteps and family.image_latents != "ends":
        raise T2VError(
            f"{family.title} cannot end at a picture, so nothing leads from one to the next: load the built-in model, "
            "DynamiCrafter 512 interp or loop, or ToonCrafter. T2VImageToVideo animates one picture with this model."
        )
