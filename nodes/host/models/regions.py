"""Core's areas and masks on clips: shares of the picture, mask bounds, masks for single frames, of conditionings and noise.

The host resolves them for pictures only. They are brought, before a run, to the absolute areas and whole masks that it takes
for clips, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.patcher_extension
import comfy.utils
import torch
from torch import Tensor

from ....t2v_models.errors import T2VError

KEY = "t2v_regions"

LEAST = 8
"""Rows and columns of the smallest area that the host makes of a mask's bounds."""


def register_wrapper(patcher: Any) -> None:
    """Register `outer_sample` on a ModelPatcher; its clones have it, too."""
    patcher.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, KEY, outer_sample)


def outer_sample(
    executor: Any,
    noise: Tensor,
    latent_image: Tensor,
    sampler: Any,
    sigmas: Tensor,
    denoise_mask: Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """Wrap a whole sampling run of the host: resolve the areas and masks of its conditionings, and its noise mask.

    Newer hosts have stretched a noise mask of KSampler over the frames before this runs, and it stays as it is.
    """
    guider = executor.class_obj
    conds = getattr(guider, "conds", None) or {}
    guider.conds = {name: [resolved(entry, noise.shape) for entry in entries] for name, entries in conds.items()}
    denoise_mask = noise_mask_per_clip(denoise_mask, noise.shape)
    return executor(noise, latent_image, sampler, sigmas, denoise_mask, *args, **kwargs)


def noise_mask_per_clip(mask: Tensor | None, shape: Sequence[int]) -> Tensor | None:
    """Return a noise mask with one picture per frame of several clips, (b t, 1, h, w) or (b t, h, w), as (b, 1, t, h, w).

    RepeatLatentBatch makes such a mask of one clip's masks, and the host takes it for one clip of so many frames. Other
    masks keep their shape. shape: of the latents, (b, c, t, h, w) or (t, c, h, w).

    Raises:
        T2VError: where values of the mask are negative or no numbers.
    """
    if mask is None:
        return None
    mask = _numbers(mask, "The latent")
    if len(shape) != 5 or mask.ndim not in (3, 4):
        return mask
    clips, frames = shape[0], shape[2]
    if clips == 1 or len(mask) != clips * frames:
        return mask
    return mask.reshape(clips, 1, frames, *mask.shape[-2:])


def resolved(entry: dict[str, Any], shape: Sequence[int]) -> dict[str, Any]:
    """Return an entry of the host's conditionings with an absolute area and a mask that fits the latents' shape.

    shape: (b, c, t, h, w) of clips, or (t, c, h, w).

    Raises:
        T2VError: for an area outside the picture, a mask of another number of frames or without numbers, a share of the
            frames of pictures, and for GLIGEN on clips.
    """
    area, mask = entry.get("area"), entry.get("mask")
    clips = len(shape) == 5
    if area is not None:
        area = _absolute(list(area[1:]), shape) if area[0] == "percentage" else area
        _check_inside(area, shape)
        entry = {**entry, "area": area}
    if mask is not None:
        mask = _numbers(mask, "A conditioning")
        entry = {**entry, "mask": mask}
    if clips and entry.get("gligen") is not None:
        raise T2VError("GLIGEN takes pictures and this latent is a clip: take its boxes out of the conditioning.")
    if not clips or mask is None:
        return entry
    mask = _of_frames(mask, shape[0], shape[2])
    if entry.get("set_area_to_bounds"):
        mask = _scaled(mask, *shape[3:])
        entry = {**entry, "area": bounds(mask), "set_area_to_bounds": False}
    if entry.get("area") is not None:  # the host cuts the mask as it cuts the frames
        mask = mask.expand(-1, shape[2], -1, -1)
    return {**entry, "mask": mask}


def _absolute(share: list[float], shape: Sequence[int]) -> tuple[Any, ...]:
    """The area of (sizes, offsets), which are shares of the last 2 or 3 dimensions, in latent pixels and frames."""
    count, sides = len(share) // 2, shape[2:]
    if count > len(sides):  # of frames, which these latents have as their batch
        if (share[0], share[count]) != (1.0, 0.0):
            raise T2VError(
                "A conditioning holds for a share of the frames, and this latent has its frames as a batch: give the "
                "sampler a video latent, by T2VLatentLayout."
            )
        share = [*share[1:count], *share[count + 1 :]]
        count -= 1
    sides = sides[-count:]
    sizes = (max(1, round(part * side)) for part, side in zip(share[:count], sides, strict=True))
    begins = (  # a share that begins within the picture keeps a pixel of it
        min(round(part * side), side - (part < 1.0)) for part, side in zip(share[count:], sides, strict=True)
    )
    return (*sizes, *begins)


def _check_inside(area: Sequence[int], shape: Sequence[int]) -> None:
    """Raise T2VError for an area, (sizes, offsets), of which nothing lies within the latents."""
    names, scales = ("frame", "row", "column")[5 - len(shape) :], (1, 8, 8)[5 - len(shape) :]
    count = len(area) // 2
    if count > len(names):
        return  # the host drops the frames of such an area
    parts = (names[-count:], scales[-count:], shape[-count:], area[count:])
    for name, scale, side, begin in zip(*parts, strict=True):
        if begin >= side:
            raise T2VError(
                f"The area of a conditioning begins at {name} {begin * scale} and there are {side * scale} {name}s: let it "
                "begin earlier."
            )


def _numbers(mask: Tensor, owner: str) -> Tensor:
    """A mask of finite numbers that are not negative; whole numbers become float32, and bytes of 0 to 255 their shares.

    owner: what has the mask, for the sentence where it holds something else.
    """
    if not mask.is_floating_point():
        mask = mask.float() / 255 if mask.dtype == torch.uint8 and (mask > 1).any() else mask.float()
    if not mask.isfinite().all() or (mask < 0).any():
        raise T2VError(
            f"{owner} has a mask with values that are negative or no numbers: repair what makes the mask, which takes values "
            "from 0 to 1."
        )
    return mask


def _of_frames(mask: Tensor, clips: int, frames: int) -> Tensor:
    """A mask, (n, h, w), (b, n, h, w) or (b, 1, n, h, w), as (1 or b, 1 or t, h, w)."""
    if mask.ndim == 5:
        mask = mask[:, 0]
    if mask.ndim == 4 and mask.shape[1] == 1 and mask.shape[0] > 1:  # pictures with a channel
        mask = mask[:, 0]
    if mask.ndim < 4:
        mask = mask.reshape(1, -1, *mask.shape[-2:])
    if mask.shape[1] == clips * frames and len(mask) == 1 and clips > 1:
        mask = mask.reshape(clips, frames, *mask.shape[-2:])
    if mask.shape[1] not in (1, frames) or len(mask) not in (1, clips):
        raise T2VError(
            f"A conditioning has a mask of {mask.shape[1]} pictures and the clip has {frames} frames: give one mask, or one "
            "for each frame."
        )
    return mask


def _scaled(mask: Tensor, height: int, width: int) -> Tensor:
    if tuple(mask.shape[-2:]) == (height, width):
        return mask
    return comfy.utils.common_upscale(mask, width, height, "bilinear", "none")


def bounds(mask: Tensor) -> tuple[int, int, int, int]:
    """The (height, width, top, left) of what a mask, (b, t, h, w), leaves of any frame, as the host finds it for pictures."""
    inside = mask.flatten(0, 1).abs().amax(0) != 0
    if not inside.any():
        return LEAST, LEAST, 0, 0
    rows, columns = inside.any(1).nonzero(), inside.any(0).nonzero()
    top, left = int(rows.min()), int(columns.min())
    return max(LEAST, int(rows.max()) - top + 1), max(LEAST, int(columns.max()) - left + 1), top, left
