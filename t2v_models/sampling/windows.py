"""Overlapping windows over the frames of a long video, and how their predictions become one.

Sources: Wang et al. 2023, Gen-L-Video (arXiv:2305.18264): predictions of overlapping clips are averaged frame by frame;
Qiu et al. 2024, FreeNoise (arXiv:2310.15169): pyramid weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..errors import T2VError
from .noise import reschedule

FUSIONS = ("pyramid", "linear", "flat")

FILLED, FILLED_GPU = 16_384, 32_768
"""Latent pixels (frames x height x width) that keep a CPU and a GPU busy: smaller windows are denoised together, up to so
many; larger ones one by one, for their memory."""


def together(frames: int, height: int, width: int, device: torch.device) -> int:
    """Number of clips that go through a UNet in one call. frames, height, width: of one clip's latents."""
    filled = FILLED if device.type == "cpu" else FILLED_GPU
    return max(1, filled // (frames * height * width))


MOST_ENTRIES = 20_000_000
"""The most frames of all windows together; a list of more would take gigabytes and minutes."""


def windows(frames: int, length: int, overlap: int, *, looped: bool = False, shift: int = 0) -> list[list[int]]:
    """List the frames of each window: `length` neighbours, the last `overlap` of them also in the next window.

    The last window is moved back so that it ends with the clip; looped, windows go on over the end to the first frame.
    A clip as long as a window is one window, if it is not looped.

    Args:
        frames, length, overlap: in frames, 0 <= overlap < length.
        looped: join the last frame to the first.
        shift: how many frames later windows begin, so that no frame stays a border from step to step; where the clip
            begins and ends, so do the first and the last window.

    Raises:
        T2VError: where windows of that length and overlap cannot cover the clip.
    """
    if length < 1 or frames < 1:
        raise T2VError(f"Windows of {length} frames over {frames}: both must be at least 1, 16 over 64, for one.")
    if not 0 <= overlap < length:
        raise T2VError(
            f"The overlap is {overlap} of a window of {length} frames: 0 to {length - 1} is wanted, 4 of 16, for one."
        )
    if length > frames:
        raise T2VError(
            f"The first window has {length} frames, but the clip has {frames}: make the clip longer, or the windows at "
            f"most {frames} frames with an overlap of {frames // 2}, for one."
        )
    stride = length - overlap
    if length * frames > MOST_ENTRIES * stride:
        raise T2VError(
            f"{frames // stride} windows of {length} frames over {frames} are too many: make the overlap smaller, "
            f"{length // 2} for one."
        )
    if looped:
        return [[(start + shift + i) % frames for i in range(length)] for start in range(0, frames, stride)]
    if frames == length:
        return [list(range(frames))]
    shift %= stride
    wanted = range(shift - stride if shift else 0, frames - length + stride, stride)
    starts = sorted({min(max(start, 0), frames - length) for start in wanted})
    return [list(range(start, start + length)) for start in starts]


def window_weights(length: int, fusion: str = "pyramid", overlap: int | None = None) -> Tensor:
    """Weights of a window's frames, (length,), symmetric about its middle.

    pyramid: 1, 2 … up to the middle and down again; linear: ramps over the overlap, 1 between; flat: 1.

    Raises:
        T2VError: for another fusion.
    """
    place = torch.arange(length)
    distance = torch.minimum(place, length - 1 - place) + 1.0  # from the nearer end, 1 at the end itself
    if fusion == "pyramid":
        return distance
    if fusion == "linear":
        ramp = max(1, length // 2 if overlap is None else overlap)
        return (distance / (ramp + 1)).clamp(max=1)
    if fusion == "flat":
        return torch.ones(length)
    raise T2VError(f"Fusion {fusion!r} is not known: choose one of {', '.join(FUSIONS)}.")


def fuse(
    parts: Iterable[Tensor],
    spans: Sequence[Sequence[int]],
    weights: Tensor,
    frames: int,
    dim: int = 2,
) -> Tensor:
    """The weighted mean, frame by frame, of what is predicted for each window.

    Args:
        parts: what is predicted for each window, with its frames along `dim`; taken one by one.
        spans: from `windows`.
        weights: (length,) from `window_weights`.
        frames: of the whole clip.
        dim: of the frames, 2 for (b, c, t, h, w).
    """
    total: Tensor | None = None
    norm = torch.zeros(frames, dtype=torch.float64)
    for span in spans:
        norm.index_add_(0, torch.tensor(span), weights[: len(span)].double())
    for span, part in zip(spans, parts, strict=True):
        if len(spans) == 1 and list(span) == list(range(frames)):
            return part
        index = torch.tensor(span, device=part.device)
        share = (weights[: len(span)] / norm[list(span)]).to(part)
        share = share.view([-1 if d == dim else 1 for d in range(part.ndim)])
        if total is None:
            shape = list(part.shape)
            shape[dim] = frames
            total = part.new_zeros(shape)
        total.index_add_(dim, index, part * share)
    if total is None:
        raise ValueError("No window is given to fuse.")
    return total


def attention_windows(spans: Sequence[Sequence[int]], weights: Tensor, frames: int) -> list[tuple[Tensor, Tensor]]:
    """The windows for `UNet3D`'s option "temporal_windows": each one's frames, and their shares, which sum to 1.

    Args:
        spans: from `windows`.
        weights: (length,) from `window_weights`.
        frames: of the whole clip.
    """
    norm = torch.zeros(frames)
    for span in spans:
        norm[list(span)] += weights[: len(span)]
    return [(torch.tensor(span), weights[: len(span)] / norm[list(span)]) for span in spans]


@dataclass(frozen=True)
class Windows:
    """How a long clip is denoised: window by window, or in one pass with attention in windows (FreeNoise)."""

    length: int = 16
    """Frames of a window: as many as the model was trained on."""

    overlap: int = 8
    """Frames that a window shares with the next."""

    fusion: str = "pyramid"
    """How windows are averaged, see `window_weights`."""

    looped: bool = False
    """Join the end to the beginning, for a seamless loop."""

    free_noise: bool = False
    """FreeNoise: one pass over all frames, with temporal attention in windows, on noise that repeats in another order."""

    frames: int = 0
    """Of the clip, set by `over`."""

    def over(self, frames: int) -> Windows:
        """These windows over a clip of that many frames."""
        return replace(self, frames=frames)

    @cached_property
    def weights(self) -> Tensor:
        """The weights of a window's frames, (length,): see `window_weights`."""
        return window_weights(self.length, self.fusion, self.overlap)

    def noise(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Rearrange noise for FreeNoise, else return it as it is. (b, c, t, h, w) -> the same shape."""
        if not self.free_noise:
            return noise
        return reschedule(noise, self.length, self.length - self.overlap, generator)

    def spans(self, step: int = 0) -> list[list[int]]:
        """List the windows' frames at a denoising step. Each step has its borders elsewhere, so that none becomes visible."""
        stride = self.length - self.overlap
        shift = round(step * stride * (math.sqrt(5) - 1) / 2) % max(1, stride)
        return windows(self.frames, self.length, self.overlap, looped=self.looped, shift=shift)

    def temporal(self) -> list[tuple[Tensor, Tensor]] | None:
        """The option "temporal_windows" of `UNet3D`; None where one window holds the clip."""
        spans = self.spans()
        return attention_windows(spans, self.weights, self.frames) if len(spans) > 1 else None

    def around(self, unet: Callable[..., Tensor], step: int = 0) -> Callable[..., Tensor]:
        """Wrap a UNet so that it denoises the clip in the windows of that step; its arguments and shapes stay the same."""
        spans = self.spans(step)
        if [list(span) for span in spans] == [list(range(self.frames))]:
            return unet
        if self.free_noise:
            windowed = self.temporal()

            def attending(*args: Any, options: dict[str, Any] | None = None, **kwargs: Any) -> Tensor:
                return unet(*args, **kwargs, options={**(options or {}), "temporal_windows": windowed})

            return attending

        def whole(x: Tensor, timesteps: Tensor, context: Tensor, **conditions: Any) -> Tensor:
            count = together(self.length, x.shape[3], x.shape[4], x.device)
            groups = (spans[at : at + count] for at in range(0, len(spans), count))
            parts = (part for group in groups for part in _together(unet, group, x, timesteps, context, conditions))
            return fuse(parts, spans, self.weights, self.frames)

        return whole


def _together(
    unet: Callable[..., Tensor],
    spans: Sequence[Sequence[int]],
    x: Tensor,
    timesteps: Tensor,
    context: Tensor,
    conditions: dict[str, Any],
) -> Iterator[Tensor]:
    """Yield the UNet's predictions for some windows, made in one call. A context of r b rows has r texts per latent.

    A condition of four dimensions, image tokens (r b, t, i, d), has one set for each frame of the clip; or, where it has
    as many as a window has frames, one for each place in a window.
    """
    at = torch.tensor(spans, device=x.device)  # (k, length)
    b, k, frames = x.shape[0], len(spans), x.shape[2]

    def rows(value: Tensor, frames: bool) -> Tensor:
        """(r b, ...) -> (r k b, ...); frames: whether the second dimension counts frames, of which a window takes its own."""
        each = value[:, at] if frames else value[:, None].expand(-1, k, *value.shape[1:])
        return torch.unflatten(each, 0, (-1, b)).transpose(1, 2).flatten(0, 2)

    repeated = {
        name: rows(value, value.ndim == 4 and value.shape[1] == frames)
        if isinstance(value, Tensor) and value.ndim
        else value
        for name, value in conditions.items()
    }
    clips = rows(x.transpose(1, 2), True).transpose(1, 2)
    times = rows(timesteps.expand(b) if timesteps.ndim < 2 else timesteps, timesteps.ndim == 2)
    prediction = unet(clips, times, rows(context, context.ndim == 4), **repeated)
    for part in torch.unflatten(prediction, 0, (-1, k, b)).unbind(1):
        yield part.flatten(0, 1)
