"""What an image-to-video model takes of pictures: image tokens, those of the unconditional picture, and image latents."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..conditions import Conditions
from ..errors import T2VError
from ..families import Family
from .latents import concat_latents, per_frame
from .preprocess import grey_image, square_pixels

log = logging.getLogger(__name__)

SHORTEST = 16
"""Frames of the clips that all image-to-video models were trained on; with fewer, objects lose their shape."""

Encode = Callable[[Tensor, Tensor | None], Tensor]
"""``encode(pictures, noise)`` -> latents (b, c, h/8, w/8) of pictures (b, h, w, 3), 0..1: samples by standard normal noise
like them, or modes where it is None."""


@dataclass(frozen=True)
class ImageInputs:
    """What a UNet takes of the pictures of b videos; None where it takes no such thing."""

    tokens: Tensor | None
    """(b, q, d)"""
    unconditional: Tensor | None
    """(b, q, d), those of the branch without a picture."""
    latents: Tensor | None
    """(b, c, t, h/8, w/8)"""

    def conditions(self, other: Conditions, branches: int, clip: int, strength: float = 1.0) -> Conditions:
        """Conditions with the pictures in them.

        Args:
            other: the conditions besides.
            branches: of guidance: 1 is the prompt alone; 2 begin with the negative prompt and no picture, and 3 have the
                negative prompt with the picture between them.
            clip: frames that the UNet sees at once: those of a window, or of the whole video.
            strength: 0..1, how much the pictures count.
        """
        image = None
        if strength and self.tokens is not None and self.unconditional is not None:
            with_picture = [self.tokens] * max(branches - 1, 1)
            image = torch.cat([self.unconditional, *with_picture] if branches > 1 else with_picture)
            image = per_frame(image, clip)
        latents = None if self.latents is None else self.latents * strength
        return replace(other, image=image, image_latents=latents, image_strength=strength)


class ImageModel:
    """The parts of an image-to-video model that make its UNet's inputs of pictures.

    Args:
        family: the model's.
        encoder: an `ImageEncoder`, or None for a family without image tokens.
        projector: a `Resampler`, or None where the family has none.
        branches: the UNet's `ImageBranches`, for I2VGen-XL.

    Raises:
        T2VError: for parts that do not fit each other.
    """

    def __init__(
        self, family: Family, encoder: Any = None, projector: Any = None, branches: nn.Module | None = None
    ) -> None:
        self.family, self.encoder, self.projector, self.branches = family, encoder, projector, branches
        if projector is not None and encoder is not None and projector.config.input_dim != encoder.width:
            raise T2VError(
                f"The image encoder is {encoder.width} wide, and the model's Resampler takes one of "
                f"{projector.config.input_dim}: give the one that belongs to it, OpenCLIP's ViT-H for the published models."
            )

    @torch.no_grad()
    def inputs(
        self, pictures: Tensor, ends: Sequence[Tensor], frames: int, encode: Encode, noise: Tensor | None = None
    ) -> ImageInputs:
        """Encode the pictures of some videos, each as if it were alone.

        Args:
            pictures: (b, height, width, 3), 0..1, the first pictures, of any size, for I2VGen-XL's image encoder.
            ends: the first pictures fitted to the video's size, and the last ones, where there are any; all other
                encoders see these.
            frames: of the videos.
            encode: the VAE.
            noise: ((n b), c, h/8, w/8) standard normal, to sample the latents of the n ends; their modes where None.

        Raises:
            T2VError: for a last picture that the model does not take.
        """
        if len(ends) > 1 and self.family.image_latents != "ends":
            raise T2VError(
                f"{self.family.title} takes a first picture only: leave the end image out, or use an interpolation model."
            )
        latents = None
        if self.family.image_latents:
            drawn = [None] * len(ends) if noise is None else noise.chunk(len(ends))
            start, *end = (_one_by_one(encode, *each) for each in zip(ends, drawn, strict=True))
            latents = concat_latents(start, end[0] if end else None, frames, self.family.image_latents)
            if self.family.image_tokens == "i2vgen":
                return ImageInputs(*self._branch_tokens(pictures, ends[0].shape[2], start), latents)
        if self.family.image_tokens != "resampler":
            return ImageInputs(None, None, latents)
        tokens = torch.cat([self._tokens(image[None]) for image in ends[0]])
        return ImageInputs(tokens, self._tokens(grey_image()).expand_as(tokens), latents)

    def _tokens(self, images: Tensor) -> Tensor:
        """(b, h, w, 3) -> (b, q, d)."""
        encoded = self.encoder.encode(images)
        weight = self.projector.proj_in.weight
        tokens: Tensor = self.projector(encoded.to(weight.device, weight.dtype))
        return tokens.float()

    def _branch_tokens(self, pictures: Tensor, width: int, latents: Tensor) -> tuple[Tensor, Tensor]:
        """I2VGen-XL's tokens, and those without CLIP's embedding, (b, q, d) each, of latents (b, c, h/8, w/8)."""
        branches: Any = self.branches
        dtype = next(branches.parameters()).dtype
        embeddings = torch.cat([self.encoder.embedding(square_pixels(each[None], width)) for each in pictures])
        latents, embeddings = latents.to(dtype), embeddings.to(latents.device, dtype)
        return branches.tokens(latents, embeddings).float(), branches.tokens(latents, embeddings * 0).float()


def warn_of_image_settings(family: Family, frames: int, condition: float | None, *, ends: bool) -> None:
    """Log what the model was not trained for: few frames, a motion outside its range, one end of two.

    Args:
        family: the model's.
        frames: of the clip.
        condition: the number that the UNet takes besides the text.
        ends: whether a last picture is given.
    """
    if frames < SHORTEST:
        log.warning(
            "%s was trained on %d frames and falls apart below: make %d, and keep every n-th where fewer are wanted.",
            family.title, SHORTEST, SHORTEST,
        )  # fmt: skip
    if family.fps_range is not None and condition is not None:
        least, most = family.fps_range
        if not least <= condition <= most:
            log.warning(
                "motion is %g, and %s was trained with %g to %g (%s).",
                condition, family.title, least, most, family.fps_meaning,
            )  # fmt: skip
    if family.image_latents == "ends" and not family.drops_last_frame and not ends:
        log.info("%s has no end image, so the video returns to its first picture.", family.title)


def _one_by_one(encode: Encode, images: Tensor, noise: Tensor | None) -> Tensor:
    """The latents of pictures (b, h, w, 3), with noise (b, c, h/8, w/8) or None."""
    drawn = [None] * len(images) if noise is None else noise.split(1)
    return torch.cat([encode(image[None], each) for image, each in zip(images, drawn, strict=True)])
