"""How the tokens of a picture are given to the frames of a clip."""

from __future__ import annotations

from torch import Tensor

QUERIES_PER_FRAME = 16
"""Image tokens of one frame, in all published models."""


def per_frame(tokens: Tensor, frames: int, queries_per_frame: int = QUERIES_PER_FRAME) -> Tensor:
    """Split image tokens into those of each frame, where there are as many as the clip has frames.

    tokens: (b, q, d) -> (b, frames, queries_per_frame, d) where q is their product; else (b, q, d), and every frame
    attends to all of them. Source: DynamiCrafter, which splits its 256 tokens over 16 frames and over no other number.
    """
    if tokens.shape[1] != queries_per_frame * frames:
        return tokens
    return tokens.reshape(tokens.shape[0], frames, queries_per_frame, tokens.shape[2])
