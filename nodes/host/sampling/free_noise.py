"""FreeNoise around the host's sampling, for every sampler node."""

from __future__ import annotations

from typing import Any

import comfy.patcher_extension
import torch
from torch import Tensor

from ....t2v_models.sampling.noise import reschedule
from ....t2v_models.sampling.windows import Windows, windows
from ..models.model import video_model
from ..models.unet import FREE_NOISE

FREE_INIT = "t2v_free_init"
REPEATED_NOISE = "t2v_free_noise"
"""Keys of our wrappers around a sampling run."""

OUTER_SAMPLE = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE


def with_free_noise(model: Any, settings: Windows) -> Any:
    """Return a clone that denoises a long clip in one pass: temporal attention in windows, repeated and shuffled noise.

    Source: Qiu et al. 2024, FreeNoise (arXiv:2310.15169).
    """
    video_model(model)
    windows(settings.length + 1, settings.length, settings.overlap)

    def outer_sample(executor: Any, noise: Tensor, latent: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        noise = in_layout_of(repeated_noise(as_clips(noise), settings, sampling_seed(args, kwargs)), noise)
        return executor(noise, latent, *args, **kwargs)

    model = model.clone()
    model.add_wrapper_with_key(OUTER_SAMPLE, REPEATED_NOISE, outer_sample)
    wrappers = model.wrappers[OUTER_SAMPLE]
    if FREE_INIT in wrappers:  # inside FreeInit's rounds it would replace the noise that they mix
        names = [name for name in wrappers if name != REPEATED_NOISE]
        names.insert(names.index(FREE_INIT), REPEATED_NOISE)
        model.wrappers[OUTER_SAMPLE] = {name: wrappers[name] for name in names}
    model.model_options.setdefault("transformer_options", {})[FREE_NOISE] = settings
    return model


def sampling_seed(args: tuple, kwargs: dict[str, Any]) -> int:
    """Return the seed among the arguments of the host's outer_sample: by name, or the last one; 0 where there is none."""
    return kwargs.get("seed", args[-1] if args and isinstance(args[-1], int) else 0) or 0


def repeated_noise(clips: Tensor, settings: Windows, seed: int) -> Tensor:
    """Return FreeNoise's noise for clips of noise, (b, c, t, h, w), that were drawn with the seed; shorter ones stay."""
    if clips.shape[2] <= settings.length:
        return clips
    generator = torch.Generator().manual_seed(seed % 2**63)
    torch.randn(clips.shape, generator=generator)  # the library's generator has drawn the noise, too
    return reschedule(clips, settings.length, settings.length - settings.overlap, generator)


def as_clips(noise: Tensor) -> Tensor:
    """Return (b, c, t, h, w) of clips, or of a batch of frames, (t, c, h, w)."""
    return noise if noise.ndim == 5 else noise.movedim(0, 1)[None]


def in_layout_of(clips: Tensor, noise: Tensor) -> Tensor:
    """Return clips, (b, c, t, h, w), in the layout of the noise, see `as_clips`."""
    return clips if noise.ndim == 5 else clips[0].movedim(1, 0)
