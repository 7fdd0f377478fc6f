"""What every frame of a clip gets of pictures: image tokens, and the latents that are concatenated to its noisy one."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import T2VError

QUERIES_PER_FRAME = 16
"""Image tokens of one frame, in all published models."""

RULES = ("repeat", "ends", "ramp")
"""How a picture fills the frames: see `concat_latents`."""


def concat_latents(first: Tensor, last: Tensor | None, frames: int, rule: str) -> Tensor:
    """Image latents for every frame of a clip.

    Args:
        first: (b, c, h, w), the latents of the first picture.
        last: (b, c, h, w), those of the last one; None where there is none, for which "ends" takes the first again, so
            that the clip is a loop.
        frames: length t of the clip.
        rule: "repeat": the first picture in every frame (DynamiCrafter); "ends": the pictures in the first and the last
            frame, and zeros between (DynamiCrafter's interpolation and loop, ToonCrafter); "ramp": the picture in the
            first frame, and in frame k a plane of k / (t - 1), its place in time (I2VGen-XL).

    Returns:
        (b, c, t, h, w).

    Raises:
        T2VError: for an unknown rule, for pictures of different sizes, and for a last picture that the rule does not use.
    """
    if rule not in RULES:
        raise T2VError(f"The rule for image latents is {rule!r}: choose one of {', '.join(RULES)}.")
    if last is not None and rule != "ends":
        raise T2VError("This model takes a first picture only: leave the end image out, or use an interpolation model.")
    if last is not None and last.shape != first.shape:
        raise T2VError(
            f"The image latents at the ends have the shapes {list(first.shape)} and {list(last.shape)}: pictures of the "
            "same size and number are wanted."
        )
    if rule == "repeat":
        return first[:, :, None].repeat(1, 1, frames, 1, 1)
    if rule == "ends":
        latents = first.new_zeros(first[:, :, None].shape).repeat(1, 1, frames, 1, 1)
        latents[:, :, -1] = first if last is None else last
    else:
        place = torch.arange(frames, dtype=first.dtype, device=first.device) / max(frames - 1, 1)
        latents = place[:, None, None].expand(frames, *first.shape[-2:]).repeat(*first.shape[:2], 1, 1, 1)
    latents[:, :, 0] = first
    return latents


def per_frame(tokens: Tensor, frames: int, queries_per_frame: int = QUERIES_PER_FRAME) -> Tensor:
    """Split image tokens into those of each frame, where there are as many as the clip has frames.

    tokens: (b, q, d) -> (b, frames, queries_per_frame, d) where q is their product; else (b, q, d), and every frame
    attends to all of them. Source: DynamiCrafter, which splits its 256 tokens over 16 frames and over no other number.
    """
    if tokens.shape[1] != queries_per_frame * frames:
        return tokens
    return tokens.reshape(tokens.shape[0], frames, queries_per_frame, tokens.shape[2])
