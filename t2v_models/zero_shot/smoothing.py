"""Steadier frames: the background of all frames from the first one, and frames between their neighbours.

Sources: Khachatryan et al. 2023, Text2Video-Zero (arXiv:2303.13439), section 3.3.3; Zhang et al. 2023, ControlVideo
(arXiv:2305.13077), section 3.3, with a mean of latents in place of its network for frames between frames.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import T2VError
from .motion import warp

ALPHA = 0.4
"""How much of its own background a frame keeps, in the paper."""

GROWN = 5
"""Width and height, in latents, of the square by which a foreground grows."""


def foreground(masks: Tensor, height: int, width: int) -> Tensor:
    """Masks of the things in the foreground, in the size of latents, made larger by 2 latents on every side.

    Args:
        masks: (f, H, W), 0..1; 1 is foreground. One mask is for all frames.
        height: of the latents.
        width: of the latents.

    Returns:
        (f, 1, height, width).
    """
    small = F.interpolate(masks[:, None].float(), size=(height, width), mode="nearest")
    return F.max_pool2d(small, GROWN, stride=1, padding=GROWN // 2)


def background(x: Tensor, masks: Tensor, sources: Tensor, alpha: float = ALPHA, how: str = "nearest") -> Tensor:
    """Draw the background of every frame towards the first frame's, moved by the motion field.

    Background is what lies outside of a frame's own mask and of the first frame's moved mask.

    Args:
        x: (f, c, h, w) latents at t1, the first frame of the video first.
        masks: (f, 1, h, w) or (1, 1, h, w) of `foreground`.
        sources: (f, 2, h, w) of `motion.sources`, for the same frames.
        alpha: 0..1, how much of its own background a frame keeps.
        how: as in `motion.warp`.

    Returns:
        (f, c, h, w); the first frame is unchanged.

    Raises:
        T2VError: where masks and frames are not as many, or alpha is no number from 0 to 1.
    """
    if not 0 <= alpha <= 1:
        raise T2VError(f"alpha is {alpha}: a number from 0 to 1 is wanted.")
    if len(masks) not in (1, len(x)):
        raise T2VError(f"There are {len(masks)} masks for {len(x)} frames: one is wanted, or one a frame.")
    masks = masks.to(x)
    moved = warp(masks[:1], sources, how)
    share = (1 - masks) * (1 - moved)
    behind = warp(x[:1] * (1 - masks[:1]), sources, how)
    smooth = x + share * (1 - alpha) * (behind - x)
    return torch.cat([x[:1], smooth[1:]])


def interleaved(x0: Tensor, parity: int) -> Tensor:
    """Replace every other frame by the mean of its neighbours; the first and the last frame stay.

    Two steps in a row, with parities 0 and 1, smooth all frames.

    Args:
        x0: (f, c, h, w) clean latents as the model predicts them at a step.
        parity: 0 for frames 2, 4, 6 …, 1 for frames 1, 3, 5 …; any other whole number counts by its remainder.

    Returns:
        (f, c, h, w).
    """
    smooth = x0.clone()
    begin = 1 if parity % 2 else 2
    smooth[begin:-1:2] = (x0[begin - 1 : -2 : 2] + x0[begin + 1 :: 2]) / 2
    return smooth
