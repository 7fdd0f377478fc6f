"""What a model that takes pictures is given of them: image latents of every frame, and image tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ....t2v_models.errors import T2VError
from ....t2v_models.image.latents import concat_latents
from ....t2v_models.image.preprocess import grey_image, square_pixels
from . import clip_vision as vision
from .model import VideoModel

Encode = Callable[[Tensor], Tensor]
"""A VAE: pictures, (1, h, w, 3), 0..1, to their latents, (1, c, 1, h/8, w/8)."""


def image_latents(inner: VideoModel, encode: Encode, first: Tensor, last: Tensor | None, frames: int) -> Tensor | None:
    """The pictures' latents for every frame, (1, c, t, h/8, w/8), as the VAE gives them; None for a model without.

    Args:
        inner: the model.
        encode: its VAE.
        first: (1, h, w, 3), 0..1, of the clip's size.
        last: likewise, the picture at the end; None without one.
        frames: of the clip.

    Raises:
        T2VError: for a picture at the end of a model that takes none.
    """
    rule = inner.family.image_latents
    if last is not None and rule != "ends":
        raise T2VError(
            f"{inner.family.title} takes a first picture only: take end_image away, or load a model that goes from one to "
            "another, such as dynamicrafter-512-interp."
        )
    if not rule:
        return None
    ends = [None if each is None else inner.process_latent_in(encode(each)[:, :, 0]) for each in (first, last)]
    return inner.process_latent_out(concat_latents(*ends, frames, rule))


def image_tokens(
    inner: VideoModel, clip_vision: Any, picture: Tensor, fitted: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Image tokens of a picture and of no picture, (1, q, d) each; None for a model that takes none.

    I2VGen-XL's are made in its UNet, of CLIP's embedding of the picture, (1, 1, d), which is zero for no picture.

    Args:
        inner: the model.
        clip_vision: the host's.
        picture: (1, h, w, 3), 0..1, of any size, as I2VGen-XL takes it.
        fitted: the same of the clip's size, as all others take it.

    Raises:
        T2VError: without an image encoder that fits, and where the file had no projector.
    """
    family, projector = inner.family, inner.image_projector
    if family.image_tokens == "i2vgen":
        pixels, width = square_pixels(picture, fitted.shape[2]), inner.diffusion_model.config.context_dim
        embedding = vision.embedding(clip_vision, pixels, width, family.title)
        return embedding[:, None], torch.zeros_like(embedding)[:, None]
    if not family.image_tokens:
        return None, None
    if projector is None:
        raise T2VError(
            f"This file of {family.title} has no image projector (image_proj_model): load one that has, the UNet alone is not "
            "enough."
        )
    clip_vision = vision.checked(clip_vision, projector.config.input_dim, family.title)
    shown, grey = (projector.project(vision.encode(clip_vision, each)) for each in (fitted, grey_image()))
    return shown, grey
