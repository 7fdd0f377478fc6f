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
    """A clone that denoises a long clip in one pass: windowed temporal attention, repeated and shuffled noise."""
    video_model(model)
    windows(settings.length + 1, settings.length, settings.overlap)

    def outer_sample(executor: Any, noise: Tensor, latent: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        noise = in_layout_of(repeated_noise(as_clips(noise), settings, sampling_seed(args, kwargs)), noise)
        return executor(noise, latent, *args, **kwargs)

    model = model.clone()
    model.add_wrapper_with_key(OUTER_SAMPLE, REPEATED_NOISE, outer_sample)
    wrappers = model.wrappers[OUTER_SAMPLE]
    if FREE_INIT in wrappers:  # within FreeInit's rounds it would undo what they keep of the round before
        names = [name for name in wrappers if name != REPEATED_NOISE]
        names.insert(names.index(FREE_INIT), REPEATED_NOISE)
        model.wrappers[OUTER_SAMPLE] = {name: wrappers[name] for name in names}
    model.model_options.setdefault("transformer_options", {})[FREE_NOISE] = settings
    return model


def sampling_seed(args: tuple, kwargs: dict[str, Any]) -> int:
    """The last argument of what the host wraps, by name or not; nodes may leave it out."""
    return kwargs.get("seed", args[-1] if args and isinstance(args[-1], int) else 0) or 0


def repeated_noise(clips: Tensor, settings: Windows, seed: int) -> Tensor:
    """FreeNoise's noise of what is longer than a window. clips: (b, c, t, h, w), made from the seed."""
    if clips.shape[2] <= settings.length:
        return clips
    generator = torch.Generator().manual_seed(seed % 2**63)
    torch.randn(clips.shape, generator=generator)  # the library's goes on where the noise ended
    return reschedule(clips, settings.length, settings.length - settings.overlap, generator)


def as_clips(noise: Tensor) -> Tensor:
    """(b, c, t, h, w), or (t, c, h, w) with the frames as the batch -> (b, c, t, h, w)."""
    return noise if noise.ndim == 5 else noise.movedim(0, 1)[None]


def in_layout_of(clips: Tensor, noise: Tensor) -> Tensor:
    """Clips in the layout of the noise that they were made of."""
    return clips if noise.ndim == 5 else clips[0].movedim(1, 0)
