"""Pictures in a CONDITIONING, and their way to the UNet: image tokens, and latents beside the noisy ones.

Tokens enter the UNet whole, and are given to the frames of each call there: a host would cut them to its context windows at
the wrong axis. Latents are cut there, too, by hosts that do not cut conditionings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.conds
import comfy.utils
import torch
from torch import Tensor

from ....t2v_models.errors import T2VError
from ....t2v_models.image.latents import per_frame

TOKENS = "t2v_image_tokens"
"""A CONDITIONING's key for the image tokens, (b, q, d)."""

STRENGTH = "t2v_image_strength"
"""A CONDITIONING's key for the factor on the attention to image tokens, and on image latents."""

FAMILY = "t2v_image_family"
"""A CONDITIONING's key for the name of the model's family that the picture was prepared for."""

LATENTS = "concat_latent_image"
"""A CONDITIONING's key for the image latents of every frame, (b, c, t, h, w), as a VAE makes them. Core uses this key, too."""

BESIDE = "t2v_image_latents"
"""The UNet's argument for image latents; image tokens and strength have the names above."""

FIRST = "t2v_image_first"
"""The UNet's argument for the first frame's image latents, (b, c, h, w), of which I2VGen-XL makes tokens."""

CONDS = (TOKENS, STRENGTH, BESIDE, FIRST)
"""The UNet's arguments that `conds` adds."""


def with_picture(
    conditioning: list, family: str, tokens: Tensor | None, latents: Tensor | None, strength: float
) -> list:
    """Return a CONDITIONING with a picture; see the names above."""
    held = {FAMILY: family, TOKENS: tokens, LATENTS: latents, STRENGTH: strength}
    held = {name: value for name, value in held.items() if value is not None}
    return [[text, {**extra, **held}] for text, extra in conditioning]


class FrameLatents(comfy.conds.CONDRegular):
    """Image latents of every frame, (b, c, t, h, w)."""

    def process_cond(self, batch_size: int, area: Sequence[int] | None = None, **_: Any) -> FrameLatents:
        """Return the part for a conditioning that holds for an area, sizes and then offsets, of so many latents."""
        data = self.cond
        if area is not None:
            count = len(area) // 2
            (height, width), (top, left) = area[count - 2 : count], area[-2:]
            data = data.narrow(-2, top, height).narrow(-1, left, width)
            if count == 3 and area[3]:  # the UNet cuts the frames of one that begins with the first
                data = data.narrow(2, area[3], area[0])
        return self._copy_with(comfy.utils.repeat_to_batch_size(data, batch_size))


def conds(inner: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the entries that `extra_conds` of a VideoModel adds for a conditioning.

    Raises:
        T2VError: where the model takes a picture and the conditioning has none, or one of another size.
    """
    family = inner.family
    made_for = kwargs.get(FAMILY)
    if made_for is None and family.image:
        raise T2VError(
            f"{family.title} begins with a picture, and the conditioning holds none: put T2VImageToVideo between the texts "
            "and the sampler, for positive and negative."
        )
    if made_for not in (None, family.name):
        raise T2VError(
            f"The conditioning holds a picture for {made_for} and this model is {family.name}: wire the model to "
            "T2VImageToVideo and to the sampler alike."
        )
    if not family.image:
        return {}
    noise, device = kwargs["noise"], kwargs["device"]
    frames, *size = (noise.shape[0], *noise.shape[2:]) if noise.ndim == 4 else noise.shape[2:]
    out: dict[str, Any] = {}
    strength = kwargs[STRENGTH]
    if kwargs.get(TOKENS) is not None and strength > 0:
        out[TOKENS] = comfy.conds.CONDRegular(kwargs[TOKENS].to(device))
        out[STRENGTH] = comfy.conds.CONDConstant(strength)
    if family.image_latents:
        latents = inner.process_latent_in(kwargs[LATENTS]).to(device)
        _check_size(latents, frames, size)
        out[BESIDE] = FrameLatents(latents * strength)
        if family.image_tokens == "i2vgen":
            out[FIRST] = comfy.conds.CONDRegular(latents[:, :, 0])
    return out


def _check_size(latents: Tensor, frames: int, size: Sequence[int]) -> None:
    if tuple(latents.shape[2:]) != (frames, *size):
        made, asked = (f"{t} frames of {8 * w}x{8 * h}" for t, h, w in (latents.shape[2:], (frames, *size)))
        raise T2VError(
            f"The picture was made ready for {made} and the latent has {asked}: wire the LATENT of T2VImageToVideo, or set "
            "its frames, width and height to those of the latent."
        )


def of_window(cond_value: Any, window: Any, device: Any = None) -> Any:
    """Cut one of our entries to the frames of a context window over the whole clip; one without frames stays as it is."""
    if not isinstance(cond_value, FrameLatents):
        return cond_value
    return cond_value._copy_with(cond_value.cond[:, :, window_frames(window)].to(device))


def window_frames(window: Any) -> list[int]:
    """The numbers of a context window's frames, with the one that newer hosts put before them."""
    anchor = getattr(window, "causal_anchor_index", None)
    return ([] if anchor is None or anchor < 0 else [anchor]) + list(window.index_list)


def tokens(unet: Any, conds: dict[str, Any], frames: int) -> Tensor | None:
    """Return the image tokens among a UNet's arguments, for one call over so many frames; None where there are none.

    Where the call has as many frames as there are sets of tokens, each place in it has its set, in every context window
    anew; else every frame has all tokens.
    """
    given = conds.get(TOKENS)
    if given is None or unet.image_branches is None:
        return None if given is None else per_frame(given, frames)
    return unet.image_branches.tokens(conds[FIRST].to(given), given[:, 0])


def with_latents(x: Tensor, conds: dict[str, Any], window: Any) -> Tensor:
    """Return the UNet's input: the noisy latents, (b, c, t, h, w), with the image latents of its arguments behind them.

    window: the host's context window, of which the call may be a part; None without one.
    """
    given = conds.get(BESIDE)
    if given is None:
        return x
    frames = x.shape[2]
    if given.shape[2] != frames:  # the host has not cut them
        numbers = [] if window is None else window_frames(window)
        given = given[:, :, numbers if len(numbers) == frames else list(range(frames))]
    return torch.cat([x, given.to(x)], dim=1)
