"""Noise that the frames of a video share, around the host's samplers: at the start, and in every step that adds noise."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.patcher_extension
import torch
from comfy.k_diffusion.sampling import BrownianTreeNoiseSampler, default_noise_sampler
from torch import Tensor

from ..sampling.ddim import fresh_noise, sample_ddim_eta
from ..sampling.free_noise import sampling_seed
from .image_model import check_frames_as_batch, frames_per_video, image_model

KEY = "t2v_same_noise"
OUTER_SAMPLE = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE

NoiseSampler = Callable[[Any, Any], Tensor]
"""(sigma, next sigma) -> noise of unit variance, in the shape of the latents."""

log = logging.getLogger(__name__)


def with_same_noise(model: Any, mix: float = 1.0, frames: int = 0, videos: int = 1) -> Any:
    """Return a clone of an image MODEL whose frames share noise in every sampler of the host.

    mix: the correlation of each frame's noise with the first frame's, see `mixed`. frames: of each video; 0: the batch holds
    `videos` videos of one length. Raises T2VError for a model that makes no single images.
    """
    image_model(model)
    model = model.clone()
    model.remove_wrappers_with_key(OUTER_SAMPLE, KEY)
    if mix > 0:
        model.add_wrapper_with_key(OUTER_SAMPLE, KEY, SameNoise(mix, frames, videos).outer_sample)
    return model


def mixed(noise: Tensor, mix: float, frames: int = 0, videos: int = 1) -> Tensor:
    """Return noise, (videos x frames, c, h, w), in which frame k is mix * first + sqrt(1 - mix^2) * own k.

    All frames keep unit variance, and the first frame of each video keeps its very noise; mix 1 gives it to all frames.
    """
    clips = noise.unflatten(0, (videos, frames_per_video(len(noise), frames, videos)))
    first, rest = clips[:, :1], clips[:, 1:]
    shared = mix * first + (1 - mix**2) ** 0.5 * rest
    return torch.cat([first, shared], dim=1).flatten(0, 1)


@dataclass(frozen=True)
class SameNoise:
    """The settings, and the wrapper around a sampling run."""

    mix: float
    frames: int
    videos: int

    def outer_sample(
        self, executor: Any, noise: Tensor, latent: Tensor, sampler: Any, sigmas: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Wrap a whole sampling run of the host: mix the noise that it begins with, and the noise of its steps."""
        check_frames_as_batch(noise)
        device = executor.class_obj.model_patcher.load_device
        x = torch.empty_like(noise, device=device, dtype=torch.float32)
        sampler = self.sampler(sampler, x, sigmas, sampling_seed(args, kwargs))
        return executor(self.of(noise), latent, sampler, sigmas, *args, **kwargs)

    def of(self, noise: Tensor) -> Tensor:
        """Mix the noise of a whole batch."""
        return mixed(noise, self.mix, self.frames, self.videos)

    def sampler(self, sampler: Any, x: Tensor, sigmas: Tensor, seed: int) -> Any:
        """Return a copy of a sampler whose fresh noise is mixed; the sampler itself where it has no fresh noise."""
        function = getattr(sampler, "sampler_function", None)
        if function is None:
            log.info("%s makes its own noise: frames share only the noise that they begin with", type(sampler).__name__)
            return sampler
        if "noise_sampler" not in inspect.signature(function).parameters:
            return sampler
        drawn: list[NoiseSampler] = []

        def noise_sampler(sigma: Any, sigma_next: Any) -> Tensor:
            if not drawn:  # made on use, since few samplers need one
                given = sampler.extra_options.get("noise_sampler")
                drawn.append(given or usual_noise(function, x, sigmas.to(x.device), seed))
            return self.of(drawn[0](sigma, sigma_next))

        changed = copy.copy(sampler)
        changed.extra_options = {**sampler.extra_options, "noise_sampler": noise_sampler}
        return changed


def usual_noise(function: Callable[..., Tensor], x: Tensor, sigmas: Tensor, seed: int) -> NoiseSampler:
    """Return the noise sampler that a sampler function makes for itself, for latents like x and a run's sigmas."""
    name = getattr(function, "__name__", "")
    if function is sample_ddim_eta:
        return fresh_noise(x, seed)
    if "dpmpp" in name and "sde" in name:
        positive = sigmas[sigmas > 0]
        return BrownianTreeNoiseSampler(x, positive.min(), positive.max(), seed=seed, cpu=not name.endswith("_gpu"))
    return default_noise_sampler(x, seed=seed)
