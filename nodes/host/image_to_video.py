"""Pictures to what a sampler takes: a model, conditionings that hold them, and a latent."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...t2v_models.arrays import pictures as checked_pictures
from ...t2v_models.errors import T2VError
from ...t2v_models.image.conditioning import warn_of_image_settings
from ...t2v_models.image.fit import FITS, fit
from ...t2v_models.sampling.repeat_and_slide import KNOWN, RESAMPLE
from . import decoding, picture_methods
from .latents import empty
from .models import conditions, guidance, pictures
from .models.image_inputs import image_latents, image_tokens
from .models.model import video_model
from .models.reference_vae import PICTURES, ReferenceVAE

log = logging.getLogger(__name__)

OWN, FRAME_INIT, SLIDE, HOLD = "model's own", "frame init", "repeat and slide", "hold the picture"
METHODS = (OWN, FRAME_INIT, SLIDE, HOLD)
"""The choices of the node's input `method`: of models that take pictures, and those of `picture_methods` for all others."""


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
    original: Tensor | None = None
    """The image before `filled` brings it to the video's size."""
    camera: str = "none"
    """For frame init: a name in `t2v_models.image.camera.CAMERAS`."""
    known: int = KNOWN
    """For repeat and slide: known frames of each clip."""
    resample: int = RESAMPLE
    """For repeat and slide, and for hold the picture: how often each step is repeated from fresh noise."""

    def filled(self, model: Any) -> Request:
        """Return the request with the model's own sizes for 0, and pictures of the video's size.

        Raises:
            T2VError: for pictures that are none, or several, and for sizes that no video has.
        """
        samples = empty(self.width, self.height, self.frames, 1, model)["samples"]  # which checks them
        frames, height, width = samples.shape[2], 8 * samples.shape[3], 8 * samples.shape[4]
        ends = {"image": one_picture(self.image, "image")}
        if self.end_image is not None:
            ends["end_image"] = one_picture(self.end_image, "end_image")
        fitted = {name: fit(picture, width, height, self.fit) for name, picture in ends.items()}
        return replace(self, frames=frames, width=width, height=height, original=ends["image"], **fitted)


Result = tuple[Any, list, list, dict[str, Any]]
"""MODEL, positive, negative, LATENT."""


def one_picture(images: Any, name: str) -> Tensor:
    """Return a node's image, (1, h, w, 3), 0..1. Raises T2VError for several, and for what is no picture."""
    if images is None:
        raise T2VError(f"{name} holds no picture: wire Load Image.")
    if images.ndim == 4 and images.shape[3] == 4:
        raise T2VError(
            f"{name} has 4 channels (RGBA), and the three of RGB are wanted: put Split Image with Alpha before this node, or "
            "lay the picture on a background by ImageCompositeMasked."
        )
    if images.ndim == 4 and len(images) > 1:
        raise T2VError(
            f"{name} holds {len(images)} pictures and one is wanted: choose one with ImageFromBatch, or take T2VBetweenImages "
            "for a video through all of them."
        )
    return checked_pictures(images.float(), name, 1).clamp(0, 1)


def _conditioned(model: Any, positive: list, negative: list, vae: Any, clip_vision: Any, request: Request) -> Result:
    """Prepare a model that was made for pictures: image tokens, and image latents beside the noisy ones."""
    inner = video_model(model)
    family = inner.family
    if not family.image:
        raise T2VError(
            f'{family.title} was made for texts alone: choose another method than "{OWN}", or load a model that takes '
            "pictures."
        )
    condition = request.motion or inner.defaults.fps_condition
    warn_of_image_settings(family, request.frames, condition, ends=request.end_image is not None)
    decoding.checked_vae(vae)
    ends = request.image, request.end_image
    latents = image_latents(inner, lambda picture: decoding.encode(vae, picture), *ends, request.frames)
    held = {"family": family.name, "latents": latents, "strength": request.image_strength}
    shown = grey = None
    if request.image_strength > 0:
        shown, grey = image_tokens(inner, clip_vision, request.original, request.image)
        if request.image_cfg > 0:
            model = guidance.with_image_guidance(model, request.image_cfg)
    model = _with_motion(model, request.motion)
    latent = empty(request.width, request.height, request.frames, 1, model)
    if isinstance(vae, ReferenceVAE):
        latent[PICTURES] = torch.cat([each for each in ends if each is not None])[[0, -1]]
    if family.drops_last_frame and request.end_image is None:
        latent[decoding.LOOP] = True
        log.info(
            "The last of the %d frames repeats the first: T2VVAEDecodeFrames and T2VSaveVideo leave it out; core's VAE Decode "
            "does not, so put ImageFromBatch behind it, with length %d.", request.frames, request.frames - 1,
        )  # fmt: skip
    positive = pictures.with_picture(positive, tokens=shown, **held)
    return model, positive, pictures.with_picture(negative, tokens=grey, **held), latent


def _with_motion(model: Any, motion: float) -> Any:
    """Return the MODEL with a value for motion; 0 leaves its default. Raises T2VError where the model takes no such value."""
    if motion <= 0:
        return model
    inner = video_model(model)
    if not inner.diffusion_model.config.fps_embedding:
        raise T2VError(f"{inner.family.title} has no input for motion, which is {motion:g}: set it to 0.")
    return conditions.with_values(model, fps=motion)


def _without_training(model: Any, vae: Any, request: Request) -> picture_methods.Prepared:
    """Prepare a model of texts by one of `picture_methods`; one that takes frames without noise holds the pictures."""
    family = video_model(model).family
    if family.image:
        raise T2VError(f'{family.title} takes pictures itself: choose the method "{OWN}".')
    if request.method in (FRAME_INIT, SLIDE) and request.end_image is not None:
        raise T2VError(
            f'The method "{request.method}" takes a first picture only: take end_image away, or choose "{HOLD}".'
        )
    model = _with_motion(model, request.motion)
    picture = model, vae, request.image, request.frames
    if request.image_strength == 0:
        return model, empty(request.width, request.height, request.frames, 1, model)
    if request.method == FRAME_INIT:
        return picture_methods.frame_init(*picture, move=request.camera, strength=request.image_strength)
    if request.method == SLIDE:
        return picture_methods.repeat_and_slide(*picture, known=request.known, resample=request.resample)
    return picture_methods.held(*picture, request.end_image, resample=request.resample)


def animate(model: Any, positive: list, negative: list, vae: Any, clip_vision: Any, request: Request) -> Result:
    """Prepare a picture for the sampler.

    Args:
        model, vae, clip_vision: the host's.
        positive, negative: CONDITIONINGs of the texts.

    Raises:
        T2VError: where the picture, the sizes or the method do not belong to the model.
    """
    family = video_model(model).family
    if request.camera != "none" and request.method != FRAME_INIT:
        raise T2VError(f'A camera is given to the method "{request.method}": only "{FRAME_INIT}" has one.')
    request = request.filled(model)
    if request.method == OWN and not family.frame_timesteps:
        return _conditioned(model, positive, negative, vae, clip_vision, request)
    model, latent = _without_training(model, vae, request)
    return model, positive, negative, latent
