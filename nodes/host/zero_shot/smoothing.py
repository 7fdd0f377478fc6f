"""Smoother videos from an image model: the background of one frame in all, and frames between their neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ....t2v_models.errors import T2VError
from ....t2v_models.zero_shot import smoothing

AT = 0.6
"""Where in the steps frames are interleaved, as a share: ControlVideo (arXiv:2305.13077) does it in steps 30 and 31 of 50."""


def foreground(mask: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a foreground mask in the size of latents, (1 or frames, 1, h, w), see `t2v_models.zero_shot.smoothing`.

    Args:
        mask: (h, w), (1, h, w) or (frames, h, w), 0..1, of any size in the latents' proportions.
        shape: of the latents, (frames, c, h, w).

    Raises:
        T2VError: for another number of masks, other proportions, and values that are no mask's.
    """
    if not isinstance(mask, Tensor) or mask.ndim not in (2, 3):
        given = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise T2VError(f"The mask is {given}: a MASK, (1, height, width) or (frames, height, width), is wanted.")
    mask = mask if mask.ndim == 3 else mask[None]
    frames, _, height, width = shape
    if len(mask) not in (1, frames):
        raise T2VError(f"{len(mask)} masks are wired for {frames} frames: give one, or one for each frame.")
    if abs(mask.shape[2] / mask.shape[1] / (width / height) - 1) > 0.05:
        raise T2VError(
            f"The mask is {mask.shape[2]}x{mask.shape[1]} and the frames are {8 * width}x{8 * height}: give a mask of the "
            "frames' proportions."
        )
    if not bool(((mask >= 0) & (mask <= 1)).all()):
        raise T2VError("The mask holds values below 0 or above 1: wire a MASK, 1 where the foreground is.")
    return smoothing.foreground(mask.float().cpu(), height, width)


def steps(count: int, sigmas: Tensor, start: int) -> Tensor:
    """Return the sigmas of so many steps, next to each other, in which frames are interleaved.

    Args:
        count: steps, at most those between the first with all frames and the last.
        sigmas: of the whole run, (n + 1,).
        start: the first step that all frames have.

    Raises:
        T2VError: for more steps than there are.
    """
    total = len(sigmas) - 1
    if count > total - start:
        raise T2VError(f"smoothing is {count} and all frames have {total - start} steps together: set smoothing to 2.")
    first = min(max(start, round(AT * total)), total - count)
    return sigmas[first : first + count]


def with_interleaved(model: Any, sigmas: Tensor, start: int, count: int) -> None:
    """Let a clone of a MODEL replace alternate frames by the mean of their neighbours in some steps. Arguments: `steps`.

    Source: the interleaved-frame smoother of ControlVideo (arXiv:2305.13077), with the mean of latents for its network
    that interpolates frames.
    """
    chosen = steps(count, sigmas, start)

    def post_cfg(args: dict[str, Any]) -> Tensor:
        sigma = args["sigma"].flatten()[:1]
        near = torch.isclose(chosen.to(sigma), sigma, rtol=1e-4, atol=0.0).nonzero()
        denoised: Tensor = args["denoised"]
        return smoothing.interleaved(denoised, int(near[0, 0]) % 2) if len(near) else denoised

    model.set_model_sampler_post_cfg_function(post_cfg)
