"""Pictures to what a sampler takes: a model, conditionings that hold them, and a latent."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ...t2v_models.arrays import pictures as checked_pictures
from ...t2v_models.errors import T2VError
from ...t2v_models.image.fit import FITS, fit
from ...t2v_models.image.latents import concat_latents
from ...t2v_models.image.preprocess import grey_image
from . import decoding
from .latents import empty
from .models import clip_vision as vision
from .models import conditions, guidance, pictures
from .models.model import VideoModel, video_model

log = logging.getLogger(__name__)

OWN = "model's own"
"""The method of models that take pictures."""

LEAST_FRAMES = 16
"""With fewer, the models that take pictures fail, all of which were trained on 16."""


@dataclass(frozen=True)
class Request:
    """What is asked for, by the names of the node's inputs."""

    image: Tensor
    """(1, h, w, 3), 0..1; `filled` brings it to the video's size."""
    frames: int = 16
    """0: the model's own; `filled` replaces it, and width and height likewise."""
    width: int = 0
    height: int = 0
    fit: str = FITS[0]
    method: str = OWN
    motion: float = 0.0
    """The model's condition on the frame rate or frame stride; 0: its default."""
    image_strength: float = 1.0
    """How much the picture counts, 0..1; 0 is the text alone."""
    image_cfg: float = 0.0
    """The guidance scale of the picture; 0: that of the text."""
    end_image: Tensor | None = None

    def filled(self, model: Any) -> Request:
        """Return the request with the model's own sizes for 0, and pictures of the video's size.

        Raises:
            T2VError: for pictures that are none, or several, and for sizes that no video has.
        """
        samples = empty(self.width, self.height, self.frames, 1, model)["samples"]  # which checks them
        frames, height, width = samples.shape[2], 8 * samples.shape[3], 8 * samples.shape[4]
        ends = {"image": self.image, "end_image": self.end_image}
        fitted = {
            name: fit(one_picture(picture, name), width, height, self.fit)
            for name, picture in ends.items()
            if picture is not None
        }
        return replace(self, frames=frames, width=width, height=height, **fitted)


Result = tuple[Any, list, list, dict[str, Any]]
"""MODEL, positive, negative, LATENT."""


def one_picture(images: Any, name: str) -> Tensor:
    """Return a node's image, (1, h, w, 3), 0..1. Raises T2VError for several, and for what is no picture."""
    if images is None:
        raise T2VError(f"{name} holds no picture: wire Load Image.")
    if images.ndim == 4 and len(images) > 1:
        raise T2VError(
            f"{name} holds {len(images)} pictures and one is wanted: choose one with ImageFromBatch, or take T2VBetweenImages "
            "for a video through all of them."
        )
    return checked_pictures(images.float(), name, 1).clamp(0, 1)


def own(model: Any, positive: list, negative: list, vae: Any, clip_vision: Any, request: Request) -> Result:
    """The way of a model that was made for pictures: image tokens, and image latents beside the noisy ones."""
    inner = video_model(model)
    family = inner.family
    if not family.image:
        raise T2VError(
            f'{family.title} was made for texts alone: choose another method than "{OWN}", or load a model that takes '
            "pictures."
        )
    held = {"latents": _latents(inner, vae, request), "strength": request.image_strength}
    shown, grey = _tokens(inner, clip_vision, request)
    if request.image_cfg > 0 and shown is not None:
        model = guidance.with_image_guidance(model, request.image_cfg)
    if request.motion > 0:
        _check_motion(inner, request.motion)
        model = conditions.with_values(model, fps=request.motion)
    latent = empty(request.width, request.height, request.frames, 1, model)
    positive = pictures.with_picture(positive, tokens=shown, **held)
    return model, positive, pictures.with_picture(negative, tokens=grey, **held), latent


def _latents(inner: VideoModel, vae: Any, request: Request) -> Tensor | None:
    """The pictures' latents for every frame, (1, c, t, h, w), as the VAE gives them; None for a model that takes none."""
    rule = inner.family.image_latents
    if request.end_image is not None and rule != "ends":
        raise T2VError(
            f"{inner.family.title} takes a first picture only: take end_image away, or load a model that goes from one to "
            "another, such as dynamicrafter-512-interp."
        )
    if not rule:
        decoding.checked_vae(vae)
        return None
    ends = [
        None if picture is None else inner.process_latent_in(decoding.encode(vae, picture)[:, :, 0])
        for picture in (request.image, request.end_image)
    ]
    latents = concat_latents(*ends, request.frames, rule)
    return inner.process_latent_out(latents * request.image_strength)


def _tokens(inner: VideoModel, clip_vision: Any, request: Request) -> tuple[Tensor | None, Tensor | None]:
    """Image tokens of the picture and of the grey one, (1, q, d) each; None where the model takes none, or at strength 0."""
    family, projector = inner.family, inner.image_projector
    if not family.image_tokens or request.image_strength == 0:
        return None, None
    if projector is None:
        raise T2VError(
            f"This file of {family.title} has no image projector (image_proj_model): load one that has, the UNet alone is not "
            "enough."
        )
    clip_vision = vision.checked(clip_vision, projector.config.input_dim, family.title)
    shown, grey = (projector.project(vision.encode(clip_vision, each)) for each in (request.image, grey_image()))
    return shown, grey


def _check_motion(inner: VideoModel, motion: float) -> None:
    """Log where a value is none that the model was trained with; T2VError where it takes no such value."""
    family = inner.family
    if not inner.diffusion_model.config.fps_embedding:
        raise T2VError(f"{family.title} has no input for motion: set it to 0.")
    if family.fps_range is not None and not family.fps_range[0] <= motion <= family.fps_range[1]:
        log.warning(
            "motion is %g, and %s was trained with %g to %g (%s).",
            motion, family.title, *family.fps_range, family.fps_meaning,
        )  # fmt: skip


METHODS: dict[str, Callable[[Any, list, list, Any, Any, Request], Result]] = {
    OWN: own,
    "frame init": own,
    "repeat and slide": own,
    "hold the picture": own,
}
"""The choices of the node's input `method`."""


def animate(model: Any, positive: list, negative: list, vae: Any, clip_vision: Any, request: Request) -> Result:
    """Prepare a picture for the sampler.

    Args:
        model, vae, clip_vision: the host's.
        positive, negative: CONDITIONINGs of the texts.

    Raises:
        T2VError: where the picture, the sizes or the method do not belong to the model.
    """
    video_model(model)
    method = METHODS[request.method]
    return method(model, positive, negative, vae, clip_vision, request.filled(model))
