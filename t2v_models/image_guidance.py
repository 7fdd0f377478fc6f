"""Models that were made for pictures: how the UNet gets the pictures of a request, and how they guide it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .arguments import is_guided
from .conditions import Conditions
from .errors import T2VError
from .image.conditioning import Encode, ImageModel, warn_of_image_settings
from .image.fit import fit
from .request import ClipModel, ClipRequest


@dataclass(frozen=True)
class GuidingPictures:
    """The pictures of a request, fitted to its videos."""

    ends: Sequence[Tensor]
    """The first pictures, and the last ones where there are any, (b, height, width, 3) each; empty for a model of texts."""
    request: ClipRequest

    @classmethod
    def of(cls, image_model: ImageModel | None, request: ClipRequest, device: torch.device) -> GuidingPictures:
        """Fit the pictures, and warn of settings that the model was not trained for.

        Raises:
            T2VError: where the model needs a picture and has none.
        """
        if image_model is None:
            return cls((), request)
        family = image_model.family
        if request.image is None:
            raise T2VError(f"{family.title} makes videos of a picture: give it one by image=.")
        warn_of_image_settings(family, request.shape[2], request.fps_condition, ends=request.end_image is not None)
        _, _, _, h, w = request.shape
        given = [each for each in (request.image, request.end_image) if each is not None]
        return cls([fit(each, 8 * w, 8 * h, request.image_fit).to(device) for each in given], request)

    def branches(self, model: ClipModel) -> int:
        """Return how many predictions guidance combines: 1, 2, or 3 where the picture has a scale of its own."""
        request = self.request
        if not self.ends or not request.image_strength or request.image_guidance_scale == request.guidance_scale:
            return 2 if is_guided(model, request.guidance_scale) else 1
        return 3

    def conditions(self, image_model: ImageModel, other: Conditions, branches: int, encode: Encode) -> Conditions:
        """Add what the UNet takes of the pictures to the other conditions.

        Args:
            image_model: encodes the pictures.
            other: the conditions besides.
            branches: see the method of that name.
            encode: the VAE.
        """
        request, windows = self.request, self.request.windows
        pictures = self.ends[0] if request.image is None else request.image
        inputs = image_model.inputs(pictures, self.ends, request.shape[2], encode, request.image_noise)
        clip = request.shape[2] if windows is None or windows.free_noise else windows.length
        return inputs.conditions(other, branches, clip, request.image_strength)

    def pairs(self, videos: int) -> Sequence[Tensor | None]:
        """Return each video's first and last picture, (2, height, width, 3), for a decoder that takes them; None without any."""
        if not self.ends or not self.request.image_strength:
            return [None] * videos
        return list(torch.stack([self.ends[0], self.ends[-1]], dim=1))
