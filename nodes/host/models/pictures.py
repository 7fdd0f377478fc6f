"""What a CONDITIONING holds of a picture, and how it reaches the UNet: image tokens, and latents beside the noisy ones.

Both enter the UNet whole, with the frames of the clip. The UNet cuts them to the frames that it computes: not every host
cuts conditionings to its context windows, and some cut image tokens at the wrong axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.conds
import comfy.utils
import torch
from torch import Tensor

from ....t2v_models.errors import T2VError
from ....t2v_models.image.tokens import per_frame

TOKENS = "t2v_image_tokens"
"""Where a CONDITIONING's dictionary has the image tokens, (b, q, d)."""

STRENGTH = "t2v_image_strength"
"""Where it has the factor on the attention to them."""

LATENTS = "concat_latent_image"
"""Where it has the image latents of every frame, (b, c, t, h, w), as a VAE gives them. Core has the same name."""


BESIDE = "t2v_image_latents"
"""The UNet's argument for image latents; image tokens and strength have the names above."""

CONDS = (TOKENS, STRENGTH, BESIDE)
"""The entries that `conds` gives, by the names of the UNet's arguments."""


def with_picture(conditioning: list, tokens: Tensor | None, latents: Tensor | None, strength: float) -> list:
    """Return a CONDITIONING with a picture; see the names above."""
    held = {TOKENS: tokens, LATENTS: latents, STRENGTH: strength}
    held = {name: value for name, value in held.items() if value is not None}
    return [[text, {**extra, **held}] for text, extra in conditioning]


class FrameTokens(comfy.conds.CONDRegular):
    """Image tokens with one set for each frame, (b, t, i, d)."""

    axis = 1
    """Of the frames."""

    def process_cond(self, batch_size: int, area: Sequence[int] | None = None, **_: Any) -> FrameTokens:
        """Return the part for a conditioning that holds for an area, sizes and then offsets, of so many latents."""
        return self._copy_with(comfy.utils.repeat_to_batch_size(_later_frames(self.cond, self.axis, area), batch_size))


class FrameLatents(comfy.conds.CONDRegular):
    """Image latents of every frame, (b, c, t, h, w)."""

    axis = 2

    def process_cond(self, batch_size: int, area: Sequence[int] | None = None, **_: Any) -> FrameLatents:
        """Return the part for a conditioning that holds for an area, sizes and then offsets, of so many latents."""
        data = _later_frames(self.cond, self.axis, area)
        if area is not None:
            count = len(area) // 2
            (height, width), (top, left) = area[count - 2 : count], area[-2:]
            data = data.narrow(-2, top, height).narrow(-1, left, width)
        return self._copy_with(comfy.utils.repeat_to_batch_size(data, batch_size))


def _later_frames(data: Tensor, axis: int, area: Sequence[int] | None) -> Tensor:
    """The frames of an area that does not begin with the first one; where it does, the UNet cuts them."""
    if area is None or len(area) < 6 or not area[3]:
        return data
    return data.narrow(axis, area[3], area[0])


def conds(inner: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the entries that `extra_conds` of a VideoModel adds for a conditioning.

    Raises:
        T2VError: where the model takes a picture and the conditioning has none, or one of another size.
    """
    family = inner.family
    if not family.image:
        if TOKENS in kwargs:
            raise T2VError(
                f"The conditioning holds a picture for another model than {family.title}: wire both from one."
            )
        return {}
    if STRENGTH not in kwargs:
        raise T2VError(
            f"{family.title} begins with a picture, and the conditioning holds none: put T2VImageToVideo between the texts "
            "and the sampler, for positive and negative."
        )
    noise, device = kwargs["noise"], kwargs["device"]
    frames, *size = (noise.shape[0], *noise.shape[2:]) if noise.ndim == 4 else noise.shape[2:]
    out: dict[str, Any] = {}
    if kwargs.get(TOKENS) is not None and kwargs[STRENGTH] > 0:
        given = per_frame(kwargs[TOKENS].to(device), frames)
        out[TOKENS] = FrameTokens(given) if given.ndim == 4 else comfy.conds.CONDRegular(given)
        out[STRENGTH] = comfy.conds.CONDConstant(kwargs[STRENGTH])
    if family.image_latents:
        latents = inner.process_latent_in(kwargs[LATENTS]).to(device)
        _check_size(latents, frames, size)
        out[BESIDE] = FrameLatents(latents)
    return out


def _check_size(latents: Tensor, frames: int, size: Sequence[int]) -> None:
    if tuple(latents.shape[2:]) != (frames, *size):
        made, asked = (f"{t} frames of {8 * w}x{8 * h}" for t, h, w in (latents.shape[2:], (frames, *size)))
        raise T2VError(
            f"The picture was made ready for {made} and the latent has {asked}: wire the LATENT of T2VImageToVideo, or set "
            "its frames, width and height to those of the latent."
        )


def of_window(cond_value: Any, window: Any, device: Any = None) -> Any:
    """Return one of our entries for the frames of a context window over the whole clip; one without frames as it is."""
    if not isinstance(cond_value, FrameTokens | FrameLatents):
        return cond_value
    return cond_value._copy_with(of_frames(cond_value.cond, cond_value.axis, window_frames(window)).to(device))


def window_frames(window: Any) -> list[int]:
    """The numbers of a context window's frames, with the one that newer hosts put before them."""
    anchor = getattr(window, "causal_anchor_index", None)
    return ([] if anchor is None or anchor < 0 else [anchor]) + list(window.index_list)


def of_frames(data: Tensor, axis: int, numbers: Sequence[int]) -> Tensor:
    """Return the frames of these numbers."""
    return data[(slice(None),) * axis + (list(numbers),)]


def tokens(conds: dict[str, Any], frames: int, window: Any) -> Tensor | None:
    """Return the image tokens of the UNet's arguments for one call over so many frames; None where there are none.

    Tokens of each frame of the clip are cut to those of the call. Where the clip has another length, and the call as many
    frames as there are sets, each place in the call has its set; else every frame has them all.
    """
    given = conds.get(TOKENS)
    if given is None:
        return None
    return _for_call(given, FrameTokens.axis, frames, window) if given.ndim == 4 else per_frame(given, frames)


def with_latents(x: Tensor, conds: dict[str, Any], window: Any) -> Tensor:
    """Return the UNet's input: the noisy latents, (b, c, t, h, w), with the image latents of its arguments behind them."""
    given = conds.get(BESIDE)
    if given is None:
        return x
    return torch.cat([x, _for_call(given, FrameLatents.axis, x.shape[2], window).to(x)], dim=1)


def _for_call(data: Tensor, axis: int, frames: int, window: Any) -> Tensor:
    """Cut to the frames of one call of the UNet, where the host has not done so.

    window: the host's context window, of which the call may be a part; None without one.
    """
    if data.shape[axis] == frames:
        return data
    numbers = [] if window is None else window_frames(window)
    return of_frames(data, axis, numbers if len(numbers) == frames else range(frames))
