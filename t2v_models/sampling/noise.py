"""Noise for long and for steadier videos.

Sources: Qiu et al. 2024, FreeNoise (arXiv:2310.15169), section 3.2; Wu et al. 2024, FreeInit (arXiv:2312.07537),
equations 5 to 8.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import T2VError

FILTERS = ("butterworth", "gaussian", "ideal")


def reschedule(noise: Tensor, window: int, stride: int, generator: torch.Generator) -> Tensor:
    """FreeNoise: repeat the first window's noise in the frames after it, shuffled within each stride.

    Frames i … i + stride take the noise of the frames one window before, in random order, so distant frames stay
    related while every window of frames holds all the different noises.

    Args:
        noise: (b, c, t, h, w); only the first `window` frames are used.
        window, stride: in frames, 1 <= stride <= window.
        generator: of the shuffles (a CPU one).

    Returns:
        (b, c, t, h, w), a new tensor.

    Raises:
        T2VError: for a stride that is no part of the window.
    """
    if not 1 <= stride <= window:
        raise T2VError(f"FreeNoise's stride is {stride} for a window of {window} frames: 1 to {window} is wanted.")
    noise = noise.clone()
    frames = noise.shape[2]
    for start in range(window, frames, stride):
        order = torch.randperm(stride, generator=generator) + start - window
        noise[:, :, start : start + stride] = noise[:, :, order[: frames - start].to(noise.device)]
    return noise


def low_pass(
    shape: tuple[int, int, int],
    kind: str = "butterworth",
    *,
    spatial: float = 0.25,
    temporal: float = 0.25,
    order: int = 4,
) -> Tensor:
    """FreeInit's low-pass filter over centred frequencies: 1 passes, 0 stops.

    d^2 = (spatial/temporal)^2 (2t/T - 1)^2 + (2h/H - 1)^2 + (2w/W - 1)^2; butterworth 1 / (1 + (d/spatial)^(2 order)),
    gaussian exp(-d^2 / (2 spatial^2)), ideal d <= 2 spatial.

    Args:
        shape: (t, h, w) of the video.
        kind: "butterworth", "gaussian" or "ideal".
        spatial, temporal: normalised stop frequencies, 0..1; with 0 nothing passes.
        order: steepness of the butterworth filter.

    Returns:
        (t, h, w), float32.

    Raises:
        T2VError: for another kind.
    """
    if kind not in FILTERS:
        raise T2VError(f"Filter {kind!r} is not known: choose one of {', '.join(FILTERS)}.")
    if spatial == 0 or temporal == 0:
        return torch.zeros(shape)
    axes = [2 * torch.arange(n, dtype=torch.float64) / n - 1 for n in shape]
    t, h, w = torch.meshgrid(*axes, indexing="ij")
    square = (spatial / temporal * t) ** 2 + h**2 + w**2
    if kind == "butterworth":
        result = 1 / (1 + (square / spatial**2) ** order)
    elif kind == "gaussian":
        result = torch.exp(-square / (2 * spatial**2))
    else:
        result = (square <= 2 * spatial).double()
    return result.float()


def mix_frequencies(low: Tensor, high: Tensor, passing: Tensor) -> Tensor:
    """Join the low frequencies of one video and the high frequencies of another.

    Args:
        low, high: (b, c, t, h, w).
        passing: (t, h, w) from `low_pass`.

    Returns:
        (b, c, t, h, w) of low's type. Source: FreeInit, equation 8.
    """
    axes = (-3, -2, -1)
    passing = passing.to(low.device)
    low_spectrum = torch.fft.fftshift(torch.fft.fftn(low.float(), dim=axes), dim=axes)
    high_spectrum = torch.fft.fftshift(torch.fft.fftn(high.float(), dim=axes), dim=axes)
    mixed = low_spectrum * passing + high_spectrum * (1 - passing)
    video: Tensor = torch.fft.ifftn(torch.fft.ifftshift(mixed, dim=axes), dim=axes).real
    return video.to(low.dtype)
