"""Pictures to what a sampler takes: a model, conditionings that hold them, and a latent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...t2v_models.errors import T2VError
from .models.model import video_model

FITS = ("crop", "pad", "stretch")
"""How a picture of another shape than the video is brought to it."""

OWN = "model's own"
"""The method of models that take pictures."""


@dataclass(frozen=True)
class Request:
    """What is asked for, by the names of the node's inputs."""

    image: Tensor
    """(1, h, w, 3), 0..1."""
    frames: int = 16
    """0: the model's own; `animate` fills it in, and width and height likewise."""
    width: int = 0
    height: int = 0
    fit: str = FITS[0]
    method: str = OWN
    motion: float = 0.0
    """The model's condition on the frame rate or frame stride; 0: its default."""
    image_strength: float = 1.0
    """Factor on the attention to the picture's content."""
    image_cfg: float = 0.0
    """The guidance scale of the picture; 0: that of the text."""
    end_image: Tensor | None = None


Result = tuple[Any, list, list, dict[str, Any]]
"""MODEL, positive, negative, LATENT."""


def own(model: Any, positive: list, negative: list, vae: Any, clip_vision: Any, request: Request) -> Result:
    """The way of a model that was made for pictures."""
    family = video_model(model).family
    raise T2VError(
        f'{family.title} was made for texts alone: choose another method than "{OWN}", or load a model that takes pictures.'
    )


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
    return METHODS[request.method](model, positive, negative, vae, clip_vision, request)
